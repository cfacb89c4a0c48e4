"""Norms whose int16 result comes later than their int8 one."""

from dataclasses import replace

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.backend import compile_layers
from gateformer.compiler.bands import gemm_band
from gateformer.compiler.batching import batch
from gateformer.compiler.graph import Role
from gateformer.compiler.late_norms import put_off_norms
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.quantized import QGemm, QNorm
from gateformer.compiler.residency import Residency
from gateformer.compiler.spilling import plan_memory
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import SMALL

CONFIG = SMALL.replace(local_kib=24)
STREAM = ("b0.sum1", "b0.stream", "b0.sum2", "b0.stream2")


def encoder(tokens=70, hidden=256, layers=2):
    graph = integer_graphs.post_norm(CONFIG, tokens, 64, 2, 32, hidden, layers, seed=3)
    return order_operations(graph, CONFIG)


def resident(graph, spilled=()):
    """All rows in local memory, but none of these tensors'."""
    rows = {t.name: 0 if t.name in spilled else t.rows for t in graph.tensors.values()}
    return Residency(graph, CONFIG, rows)


def late_bands(graph, norm):
    return [op for op in graph.operations if op.name.startswith(f"{norm}/int16/row")]


@pytest.mark.parametrize(("tokens", "samples"), [(70, 1), (16, 3), (1, 1)])
def test_it_computes_the_same(tokens, samples):
    graph = batch(encoder(tokens), samples, CONFIG)
    late = put_off_norms(graph, resident(graph, STREAM))
    assert late.streams == set(STREAM)
    assert late.graph.macs == graph.macs
    x = graph.tensors["x"]
    codes = {"x": np.random.default_rng(1).integers(-3000, 3000, (x.rows, x.cols))}
    (name,) = (t.name for t in graph.tensors.values() if t.role.name == "OUTPUT")
    for lengths in ([tokens] * samples, [1] * samples, [max(tokens - 5 * i, 1) for i in (1, 2, 0)]):
        expected = run_quantized(graph, codes, CONFIG, lengths[:samples])
        seen = run_quantized(late.graph, codes, CONFIG, lengths[:samples])
        for sample, length in enumerate(lengths[:samples]):
            rows = slice(tokens * sample, tokens * sample + length)
            assert np.array_equal(seen[name][rows], expected[name][rows])


def test_the_int8_result_comes_at_once_and_bands_of_the_other_before_they_are_read():
    graph = encoder()
    late = put_off_norms(graph, resident(graph, STREAM)).graph
    for norm, product in (("b0.norm1", "b0.down"), ("b0.norm2", "b1.out")):
        before = next(op for op in graph.operations if op.name == norm)
        place = next(i for i, op in enumerate(late.operations) if op.name == norm)
        first = late.operations[place]
        assert isinstance(first, QNorm)
        assert first.int16 is None and first.int8 == before.int8
        bands = late_bands(late, norm)
        assert [op.int8 for op in bands] == [None] * len(bands)
        rows = [r for op in bands for r in range(op.source.row, op.source.row + op.source.rows)]
        assert rows == list(range(70))
        assert [op.source.row for op in bands] == [op.int16.target.row for op in bands]
        reader = next(i for i, op in enumerate(late.operations) if op.name == product)
        places = [late.operations.index(op) for op in bands]
        assert places[0] > place + 1, "a product comes first"
        assert places[-1] < reader


def test_products_come_between_the_bands():
    """That of the feed-forward part takes longer than a band's share of the time."""
    graph = encoder(hidden=512)
    late = put_off_norms(graph, resident(graph, STREAM)).graph
    ups = [op for op in late.operations if op.name.startswith("b0.up")]
    assert all(isinstance(op, QGemm) for op in ups)
    assert [(op.out.col, op.out.cols) for op in ups] == [(64 * i, 64) for i in range(8)]
    assert [op.b.row for op in ups] == [64 * i for i in range(8)]
    assert late.tensors["b0.hidden"].segment == 64
    kinds = [
        type(op) for op in late.operations if op in ups or op.name.startswith("b0.norm1/int16")
    ]
    runs = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] is not kind]
    assert len(runs) >= 2 * 8 - 1


def test_pieces_are_whole_words():
    """260 columns are not."""
    graph = encoder(hidden=260)
    late = put_off_norms(graph, resident(graph, STREAM)).graph
    assert late_bands(late, "b0.norm1")
    assert [op.name for op in late.operations if op.name.startswith("b0.up")] == ["b0.up"]


def test_all_bands_come_before_the_first_of_several_readers():
    graph = encoder()
    place = next(i for i, op in enumerate(graph.operations) if op.name == "b0.down")
    down = graph.operations[place]
    halves = [gemm_band(down, 0, 32), gemm_band(down, 32, 70)]
    operations = (*graph.operations[:place], *halves, *graph.operations[place + 1 :])
    late = put_off_norms(replace(graph, operations=operations), resident(graph, STREAM)).graph
    bands = late_bands(late, "b0.norm1")
    assert late.operations.index(bands[-1]) < late.operations.index(halves[0])


@pytest.mark.parametrize("kind", ["residual", "by_row"])
def test_a_product_whose_columns_are_not_alone_stays_whole(kind):
    """Pieces would want columns of its residual, and have no records of their own."""
    g = integer_graphs.Builder(CONFIG, 7)
    x = g.tensor("x", 70, 64, Role.INPUT, "int16")
    narrow, stream = g.tensor("narrow", 70, 64), g.tensor("stream", 70, 64, kind="int16")
    g.norm("norm", x, 64, int8=narrow, int16=stream)
    up = g.tensor("up", 70, 512, kind="int16")
    beside = g.tensor("beside", 70, 512, Role.INPUT, "int16")
    options = {"residual": {"residual": beside}, "by_row": {"by_row": True}}[kind]
    if kind == "by_row":
        options["records"] = g.records(70, 64)
    g.gemm("up", narrow, g.weights("w.up", 512, 64), up, **options)
    y = g.tensor("y", 70, 64, Role.OUTPUT, "int16")
    g.gemm("out", narrow, g.weights("w.out", 64, 64), y, residual=stream)
    graph = g.done()
    late = put_off_norms(graph, resident(graph, ("x", "stream"))).graph
    assert late_bands(late, "norm")
    assert [op.name for op in late.operations if op.name.startswith("up")] == ["up"]


@pytest.mark.parametrize(
    "spilled",
    [(), ("b0.sum1",), ("b0.stream",), ("b0.sum1", "b0.sum2"), ("b1.sum2", "b1.stream2")],
    ids=str,
)
def test_a_norm_stays_whole(spilled):
    """Unless both its source and its int16 result pass through DRAM, and it has an int8 one."""
    graph = encoder()
    late = put_off_norms(graph, resident(graph, spilled))
    assert late.graph is graph
    assert not late.streams


def test_what_passes_through_dram_takes_no_local_memory():
    graph = encoder()
    plan = plan_memory(graph, CONFIG.replace(local_kib=64))
    assert any(plan.residency.resident(name) for name in STREAM)
    late = put_off_norms(graph, resident(graph, STREAM))
    plan = plan_memory(late.graph, CONFIG.replace(local_kib=64), streams=late.streams)
    assert not any(plan.residency.resident(name) for name in STREAM)


def test_the_compiler_takes_it_where_it_is_faster():
    tight = SMALL.replace(local_kib=16)
    graph = integer_graphs.post_norm(tight, 50, 128, 2, 32, 256, 2, seed=3)
    for config, late in ((tight, True), (tight.replace(local_kib=64), False)):
        names = compile_layers(graph, config)[1].names
        assert any("/int16/row" in name for name in names) == late
