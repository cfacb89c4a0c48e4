"""Shares of time, and what the probes of a simulation tell."""

import integer_graphs
import numpy as np
import pytest
from configs import ALONE, ONE_PORT

from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.bound import array_cycles
from gateformer.compiler.timeline import Reason, Span
from gateformer.sim import rtl
from gateformer.sim.profile_plot import time_shares
from gateformer.sim.recording import WINDOW, recorded
from gateformer.sim.simulate import BUILD, RtlRunner, load
from gateformer.spec.isa import Engine, Opcode


def test_time_shares() -> None:
    """Two instructions, in steps of ten cycles; what is waited for inside is spread evenly."""
    waits = {Reason.QUEUE: 5, Reason.SEMAPHORE: 10, Reason.OPERAND: 5}
    spans = [
        Span(Engine.DMA, 0, 0, 0, 10, {}),
        Span(Engine.DMA, 1, 15, 25, 35, waits),
    ]
    shares = time_shares(spans, np.arange(0, 51, 10))
    assert np.allclose(sum(shares.values()), 1)
    assert np.allclose(shares["busy"], [1, 0, 0.25, 0.25, 0])
    assert np.allclose(shares["operand"], [0, 0, 0.25, 0.25, 0])
    assert np.allclose(shares["semaphore"], [0, 0.5, 0.5, 0, 0])
    assert np.allclose(shares["queue"], [0, 0.5, 0, 0.5, 1])


@pytest.mark.parametrize("config", [ONE_PORT, ALONE], ids=lambda config: config.name)
def test_recorded(config) -> None:
    """Every engine's time is told without gaps, and the array's work is the program's."""
    graph = integer_graphs.encoder(config, tokens=33, dim=24, heads=2, size=8, hidden=40)
    image = compile_quantized(graph, config)
    with rtl.RtlMachine(rtl.build(config, BUILD), config) as machine:
        runner = RtlRunner(machine, image)
        load(runner, config, image)
        machine.record_profiles(WINDOW)
        runner.start()
        recording = recorded(machine, image.instructions)
        timeline, cycles = recording.timeline, machine.cycles
    gemms = [i for i in image.instructions if i.opcode is Opcode.GEMM]
    assert timeline.busy(Engine.ARRAY) == sum(array_cycles(config, i) for i in gemms)
    for engine in Engine:
        last = 0
        for span in timeline.of(engine):
            assert last <= span.ready <= span.start <= span.end <= cycles
            assert span.waits.get(Reason.QUEUE, 0) == span.ready - last
            assert span.waits.get(Reason.SEMAPHORE, 0) == span.start - span.ready
            assert span.busy >= 0
            last = span.end
    moved = sum(
        i["rows"] * i["words"] * config.word_bytes
        for i in image.instructions
        if i.opcode in (Opcode.DMA_LOAD, Opcode.DMA_STORE)
    )
    fetched = 0 if config.dram == "none" else 32 * len(image.instructions)
    seen = timeline.dram_beats * config.bus_bytes
    assert moved + fetched <= seen <= moved + fetched + 2 * config.burst_bytes
    assert recording.dram_bytes.sum() == seen
