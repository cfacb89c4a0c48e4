"""What the plan puts where: nothing that lives at once overlaps, nothing moves without need."""

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler import spilling
from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.cycle_model import predict_cycles
from gateformer.compiler.graph import Role
from gateformer.compiler.in_place import heirs
from gateformer.compiler.layout import Layout
from gateformer.compiler.memory_use import MemoryUse
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.plan import lifetimes
from gateformer.compiler.spilling import plan_memory
from gateformer.spec.configs import ECP5_85K, SMALL, TINY
from gateformer.spec.isa import Opcode

MINILM = (128, 384, 12, 32, 1536)
"""Tokens, channels, heads, head size and hidden channels of all-MiniLM-L6-v2."""


def moved_bytes(config, program):
    return sum(
        i["rows"] * i["words"] * config.word_bytes
        for i in program
        if i.opcode in (Opcode.DMA_LOAD, Opcode.DMA_STORE)
    )


def spilled(graph, plan):
    return {
        t.name
        for t in graph.tensors.values()
        if t.role is Role.VALUE and plan.residency.resident(t.name) < t.rows
    }


def check_no_overlap(blocks, pairs=()):
    """blocks: (name, first, end, lifetime); pairs: (source, heir) that may share a first word."""
    for index, (name, low, high, span) in enumerate(blocks):
        for other, other_low, other_high, other_span in blocks[:index]:
            together = span.start < other_span.stop and other_span.start < span.stop
            shares = low == other_low and {(name, other), (other, name)} & set(pairs)
            assert not together or high <= other_low or other_high <= low or shares


@pytest.mark.parametrize("config", [TINY, SMALL, ECP5_85K], ids=lambda c: c.name)
@pytest.mark.parametrize("kib", [12, 16, 32, 128])
def test_what_lives_at_once_lies_apart(config, kib):
    config = config.replace(local_kib=kib)
    graph = integer_graphs.post_norm(config, 70, 64, 2, 32, 256, 2)
    plan = plan_memory(graph, config)
    spans = lifetimes(graph, config)
    local = [
        (name, p.address, p.address + p.layout.words_of_rows(p.rows), spans[name])
        for name, p in plan.local.items()
    ]
    pairs = [(heir.source, name) for name, heir in heirs(graph).items()]
    check_no_overlap(local, pairs)
    for _, _, high, span in local:
        assert all(high <= plan.floors[index] for index in span)
    homes = []
    for name, address in plan.dram.items():
        tensor = graph.tensors[name]
        size = Layout.of(tensor, config.word_bytes).words * config.word_bytes
        always = tensor.role in (Role.INPUT, Role.OUTPUT)
        span = range(len(graph.operations)) if always else spans[name]
        homes.append((name, address, address + size, span))
        assert address + size <= plan.constants_base
    check_no_overlap(homes)
    assert bool(spilled(graph, plan)) == (kib < 128)


def test_nothing_moves_that_fits():
    graph = integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 256, 2)
    program = compile_quantized(graph, ECP5_85K).instructions
    ends = sum(
        Layout.of(t, 8).words * 8
        for t in graph.tensors.values()
        if t.role in (Role.INPUT, Role.OUTPUT)
    )
    weights = len(compile_quantized(graph, ECP5_85K).data)
    assert moved_bytes(ECP5_85K, program) <= ends + 1.02 * weights


@pytest.mark.parametrize(
    ("config", "busy", "traffic"), [(ECP5_85K, 0.85, 1.8), (SMALL, 0.95, 4)], ids=["ecp5", "small"]
)
def test_minilm_compiles_and_keeps_the_array_busy(config, busy, traffic):
    """Two layers; all that moves is less than `traffic` times the weights."""
    graph = integer_graphs.post_norm(config, *MINILM, 2)
    image = compile_quantized(graph, config)
    weights = sum(t.codes.size for t in graph.tensors.values() if t.codes is not None)
    assert moved_bytes(config, image.instructions) < traffic * weights
    cycles = predict_cycles(config, image.instructions)
    assert graph.macs / config.macs / cycles >= busy


def test_weights_come_once_where_all_rows_of_a_fit():
    """Rows of the hidden layer leave local memory, and no constant comes twice."""
    graph = integer_graphs.post_norm(ECP5_85K, *MINILM, 1)
    plan = plan_memory(graph, ECP5_85K)
    assert plan.residency.resident("b0.hidden") < 128
    image = compile_quantized(graph, ECP5_85K)
    loads = [
        i["rows"] * i["words"] * ECP5_85K.word_bytes
        for i in image.instructions
        if i.opcode is Opcode.DMA_LOAD and i["dram_address"] >= image.data_address
    ]
    assert len(image.data) - ECP5_85K.burst_bytes < sum(loads) < 1.02 * len(image.data)


def test_partial_sums_are_int32_with_one_bias():
    """2,500 elements exceed k_max: all parts but the last write int32, all but the first add."""
    graph = integer_graphs.product(SMALL, 40, 20, 2500)
    program = compile_quantized(graph, SMALL).instructions
    gemms = [i for i in program if i.opcode is Opcode.GEMM]
    parts = sorted({(i["format"], i["addend"]) for i in gemms})
    assert parts == [(1, 1), (2, 0), (2, 1)]
    assert max(i["k"] for i in gemms) <= SMALL.k_max
    assert all(np.isin(i["k"] % SMALL.word_bytes, (0, 2500 % SMALL.word_bytes)) for i in gemms)


def test_rows_of_a_stream_move_out_of_both_its_tensors():
    """Of a sum and the stream that takes its place: to move one out alone frees nothing."""
    config = ECP5_85K.replace(local_kib=20)
    graph = order_operations(integer_graphs.post_norm(config, 128, 128, 2, 64, 512), config)
    use = MemoryUse(graph, config, "bytes", 8)
    for move in (spilling._fit, spilling._improve, spilling._refill):
        move(use)

    def moving():
        return sum(map(use.moving, range(len(graph.operations))))

    before = moving()
    assert use.heirs["b0.sum2"].source == "b0.stream"
    assert use.rows["b0.sum2"] > 0
    spilling._part_streams(use)
    assert moving() < 0.6 * before
    assert use.rows["b0.sum2"] == use.rows["b0.stream"] == 0
    assert plan_memory(graph, config).residency.resident("b0.sum2") == 0


def test_a_staged_norm_is_written_over_its_rows():
    """Rows of a residual stream in DRAM need their words of staging only once."""
    graph = integer_graphs.post_norm(ECP5_85K, 128, 768, 12, 64, 3072, 1)
    image = compile_quantized(graph, ECP5_85K)
    norms = [i for i in image.instructions if i.opcode is Opcode.NORM and i["write16"]]
    stored = {i["local_address"] for i in image.instructions if i.opcode is Opcode.DMA_STORE}
    loaded = {i["local_address"] for i in image.instructions if i.opcode is Opcode.DMA_LOAD}
    over = [i for i in norms if i["source_address"] == i["target16_address"]]
    assert sum(i["source_address"] in stored & loaded for i in over) > len(norms) / 2
