"""Runs integer graphs on RTL and golden model."""

import numpy as np

from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.host_model import layout_of
from gateformer.sim import rtl
from gateformer.sim.simulate import BUILD, GoldenRunner, RtlRunner, load


def run(graph, config, stalls=(0, 0), seeds=(1,), local_kib=None, lengths=None, samples=1):
    """Runs random inputs on both; every instruction's writes must be equal. The last counters.

    local_kib: compiles for less local memory than there is. lengths: the runtime length of each
    sample.
    """
    image = compile_quantized(
        graph, config.replace(local_kib=local_kib or config.local_kib), samples=samples
    )
    golden = GoldenRunner(config, image)
    with rtl.RtlMachine(rtl.build(config, BUILD), config) as machine:
        machine.set_stalls(*stalls)
        runner = RtlRunner(machine, image)
        load(golden, config, image)
        load(runner, config, image)
        if lengths is not None:
            golden.set_lengths(lengths)
            runner.set_lengths(lengths)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            for d in image.inputs:
                codes = rng.integers(-128, 128, (d.rows, d.cols))
                content = layout_of(d, config).pack(codes).tobytes()
                golden.write(d.space, d.address, content)
                runner.write(d.space, d.address, content)
            assert runner.start() == golden.start()
            for d in image.outputs:
                size = layout_of(d, config).words * config.word_bytes
                seen = runner.read(d.space, d.address, size)
                assert np.array_equal(seen, golden.read(d.space, d.address, size))
        return image, machine.cycles, machine.counters()
