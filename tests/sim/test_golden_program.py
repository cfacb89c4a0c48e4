"""The golden machine, running compiled programs, equals the integer graph."""

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.backend import compile_layers, compile_quantized
from gateformer.compiler.bands import cut_bands
from gateformer.compiler.batching import batch
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


def run(graph, config, seed, lengths=None, samples=1):
    """Outputs of the golden machine and of the integer graph for a random input."""
    image = compile_quantized(graph, config, samples=samples)
    graph = batch(graph, samples, config)
    rng = np.random.default_rng(seed)
    machine = GoldenMachine(config, np.zeros(image.window_bytes, np.uint8))
    if lengths is not None:
        machine.lengths[: len(lengths)] = lengths
    home = machine.local if config.dram == "none" else machine.dram
    home[image.data_address :][: len(image.data)] = np.frombuffer(image.data, np.uint8)
    inputs = {}
    for d in image.inputs:
        inputs[d.name] = rng.integers(-128, 128, (d.rows, d.cols)).astype(np.int8)
        content = layout_of(d, config).pack(inputs[d.name])
        memory = machine.dram if d.space == "dram" else machine.local
        memory[d.address :][: len(content)] = content
    machine.run(image.instructions)
    expected = run_quantized(graph, inputs, config, lengths)
    got = {}
    for d in image.outputs:
        layout = layout_of(d, config)
        memory = machine.dram if d.space == "dram" else machine.local
        got[d.name] = layout.unpack(memory[d.address :][: layout.words * config.word_bytes])
    names = [t.name for t in graph.tensors.values() if t.role is Role.OUTPUT]
    return got, {name: expected[name] for name in names}


def assert_equal_rows(graph, config, *lengths):
    """The rows of the tokens that there are, of every output of a batch of as many samples."""
    got, expected = run(graph, config, seed=sum(lengths), lengths=lengths, samples=len(lengths))
    for name, array in expected.items():
        tokens = len(array) // len(lengths)
        for sample, length in enumerate(lengths):
            rows = slice(sample * tokens, sample * tokens + length)
            assert np.array_equal(got[name][rows], array[rows]), f"sample {sample}, {length} tokens"


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


def random_graph(seed, config):
    """An encoder of random sizes, pre-norm or post-norm."""
    rng = np.random.default_rng(seed)
    tokens, heads, size = (int(rng.integers(*r)) for r in ((1, 80), (1, 4), (1, 40)))
    dim, hidden = int(rng.integers(1, 100)), int(rng.integers(1, 300))
    make = integer_graphs.post_norm if rng.integers(2) else integer_graphs.encoder
    return make(config, max(tokens, 2), dim, heads, size, hidden, 1, seed)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_in_little_memory(config, seed):
    """Local memory from what is just enough up: whatever compiles is right."""
    done = 0
    for kib in (8, 12, 24):
        tight = config.replace(local_kib=kib)
        graph = random_graph(seed, tight)
        try:
            got, expected = run(graph, tight, seed)
        except CapacityError:
            assert not done, f"{kib} KiB are too little, less was enough"
            continue
        done += 1
        for name, array in expected.items():
            assert np.array_equal(got[name], array), f"seed {seed}, {kib} KiB"
    assert done >= 2


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("k", [1025, 2500, 3072])
@pytest.mark.parametrize("kib", [32, 64])
def test_contractions_in_parts(config, kind, k, kib):
    config = config.replace(local_kib=kib)
    graph = integer_graphs.product(config, 70, 20, k, seed=k, kind=kind)
    got, expected = run(graph, config, seed=2)
    assert np.array_equal(got["y"], expected["y"])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kib", [16, 64])
def test_runtime_lengths(config, kib):
    """Rows of tokens up to the length are what a model of that length computes."""
    config = config.replace(local_kib=kib)
    graph = integer_graphs.post_norm(config, 37, 33, 3, 11, 100, 2)
    for length in (1, 31, 33, 36, 37):
        assert_equal_rows(graph, config, length)


@pytest.mark.parametrize("kib", [16, 64])
def test_batches_of_different_lengths(kib):
    config = SMALL.replace(local_kib=kib, samples=4)
    for tokens in (37, 40):
        graph = integer_graphs.post_norm(config, tokens, 33, 3, 11, 100, 2)
        assert_equal_rows(graph, config, 1, tokens, 33)


@pytest.mark.parametrize("lengths", [[50, 50], [1, 50], [33, 0]], ids=str)
def test_samples_in_turn(lengths):
    """A batch of two whose values would not fit side by side, as a program."""
    config = SMALL.replace(local_kib=16)
    graph = integer_graphs.post_norm(config, 50, 64, 2, 32, 256)
    names = compile_layers(graph, config, samples=2)[1].names
    assert names.index("b0.down@0") < names.index("norm@1")
    assert_equal_rows(graph, config, *lengths)


@pytest.mark.parametrize("length", [1, 32, 33, 70])
def test_bands(length):
    """Two bands, as a program: 70 x 256 hidden values in 32 KiB."""
    config = ECP5_85K.replace(local_kib=32)
    graph = cut_bands(integer_graphs.post_norm(config, 70, 64, 2, 32, 256, 2), config)
    assert sum(op.name.startswith("b0.up") for op in graph.operations) == 2
    assert_equal_rows(graph, config, length)


@pytest.mark.parametrize("length", [1, 8, 33, 50])
def test_late_norms(length):
    """Norms whose int16 result comes later than their int8 one, as a program."""
    config = SMALL.replace(local_kib=16)
    graph = integer_graphs.post_norm(config, 50, 128, 2, 32, 256, 2)
    assert any("/int16/row" in name for name in compile_layers(graph, config)[1].names)
    assert_equal_rows(graph, config, length)


@pytest.mark.parametrize("length", [1, 32, 33, 100])
def test_attention_in_bands(length):
    """Scores of 100 x 100 in 24 KiB, as a program."""
    config = ECP5_85K.replace(local_kib=24)
    graph = integer_graphs.post_norm(config, 100, 48, 2, 24, 64)
    assert any("scores/row" in name for name in compile_layers(graph, config)[1].names)
    assert_equal_rows(graph, config, length)


def test_without_dram_to_write_activations_must_fit():
    config = SMALL.replace(dram="readonly")
    with pytest.raises(CapacityError, match="local_kib"):
        compile_quantized(integer_graphs.product(config, 300, 8, 1000), config)


def test_without_dram_constants_must_fit():
    """Those that lie behind the end of local memory altogether, too."""
    config = ECP5_85K.replace(dram="none", local_kib=48, cols=8, word_bytes=16)
    with pytest.raises(CapacityError, match=r"constants and program need .* no DRAM"):
        compile_quantized(integer_graphs.encoder(config, 70, 64, 1, 32, 16, 1), config)


def test_a_program_without_an_end_is_refused():
    machine = GoldenMachine(SMALL, np.zeros(0, np.uint8))
    with pytest.raises(RunError, match="HALT"):
        machine.run(())


def test_dma_beyond_the_window_is_refused():
    machine = GoldenMachine(SMALL, np.zeros(64, np.uint8))
    program = (instruction(Opcode.DMA_LOAD, rows=1, words=9), instruction(Opcode.HALT))
    with pytest.raises(RunError, match="window"):
        machine.run(program)
