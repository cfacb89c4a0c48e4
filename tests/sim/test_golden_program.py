"""The golden machine, running compiled programs, equals the integer graph."""

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.graph import Role
from gateformer.compiler.host_model import layout_of
from gateformer.sim.golden_graph import run_quantized
from gateformer.sim.golden_program import GoldenMachine
from gateformer.spec.configs import ECP5_85K, SMALL, TINY
from gateformer.spec.errors import CapacityError, RunError
from gateformer.spec.isa import Opcode, instruction

ODD = SMALL.replace(
    name="odd", rows=3, cols=2, lanes=1, word_bytes=16, epilogue_lanes=3, residual_bits=14
)
CONFIGS = {c.name: c for c in (TINY, SMALL, ECP5_85K, ODD)}
MODES = ("readwrite", "readonly", "none")


def run(graph, config, seed):
    """Outputs of the golden machine and of the integer graph for a random input."""
    image = compile_quantized(graph, config)
    rng = np.random.default_rng(seed)
    machine = GoldenMachine(config, np.zeros(image.window_bytes, np.uint8))
    home = machine.local if config.dram == "none" else machine.dram
    home[image.data_address :][: len(image.data)] = np.frombuffer(image.data, np.uint8)
    inputs = {}
    for d in image.inputs:
        inputs[d.name] = rng.integers(-128, 128, (d.rows, d.cols)).astype(np.int8)
        content = layout_of(d, config).pack(inputs[d.name])
        memory = machine.dram if d.space == "dram" else machine.local
        memory[d.address :][: len(content)] = content
    machine.run(image.instructions)
    expected = run_quantized(graph, inputs, config)
    got = {}
    for d in image.outputs:
        layout = layout_of(d, config)
        memory = machine.dram if d.space == "dram" else machine.local
        got[d.name] = layout.unpack(memory[d.address :][: layout.words * config.word_bytes])
    names = [t.name for t in graph.tensors.values() if t.role is Role.OUTPUT]
    return got, {name: expected[name] for name in names}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    "sizes",
    [(17, 48, 3, 16, 96, 2), (9, 20, 2, 12, 36, 1), (2, 8, 1, 5, 7, 1), (40, 33, 2, 7, 50, 1)],
    ids=str,
)
def test_encoders(config, sizes, mode):
    config = config.replace(dram=mode, local_kib=512)
    graph = integer_graphs.encoder(config, *sizes, seed=sum(sizes))
    got, expected = run(graph, config, seed=1)
    for name, array in expected.items():
        assert np.array_equal(got[name], array)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (70, 130, 200), (33, 300, 64), (5, 17, 250)], ids=str)
def test_products(config, sizes, kind):
    graph = integer_graphs.product(config, *sizes, seed=3, kind=kind)
    got, expected = run(graph, config, seed=2)
    assert np.array_equal(got["y"], expected["y"])


def test_without_dram_to_write_activations_must_fit():
    config = SMALL.replace(dram="readonly")
    with pytest.raises(CapacityError, match="local_kib"):
        compile_quantized(integer_graphs.product(config, 300, 8, 1000), config)


def test_a_program_without_an_end_is_refused():
    machine = GoldenMachine(SMALL, np.zeros(0, np.uint8))
    with pytest.raises(RunError, match="HALT"):
        machine.run(())


def test_dma_beyond_the_window_is_refused():
    machine = GoldenMachine(SMALL, np.zeros(64, np.uint8))
    program = (instruction(Opcode.DMA_LOAD, rows=1, words=9), instruction(Opcode.HALT))
    with pytest.raises(RunError, match="window"):
        machine.run(program)
