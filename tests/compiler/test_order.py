"""Pieces, their order, and results that take the place of operands."""

from dataclasses import replace

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.in_place import heirs, overwritten
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.pieces import cut_pieces
from gateformer.compiler.quantized import QGemm, QSoftmax
from gateformer.compiler.views import views_read, views_written
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import ECP5_85K, SMALL


def arranged(graph, config):
    return order_operations(cut_pieces(graph, config), config)


def inputs(graph, seed):
    random = np.random.default_rng(seed)
    return {
        t.name: random.integers(-100, 100, (t.rows, t.cols))
        for t in graph.tensors.values()
        if t.role.name == "INPUT"
    }


@pytest.mark.parametrize("config", [ECP5_85K, SMALL], ids=lambda c: c.name)
def test_the_new_order_computes_the_same(config):
    graph = integer_graphs.post_norm(config, 37, 96, 6, 16, 160, 2, seed=5)
    other = arranged(graph, config)
    codes = inputs(graph, 7)
    expected = run_quantized(graph, codes, config, [37])
    seen = run_quantized(other, codes, config, [37])
    ends = [t.name for t in graph.tensors.values() if t.role.name == "OUTPUT"]
    assert ends
    for name in ends:
        assert np.array_equal(seen[name], expected[name])


def test_a_product_with_records_by_row_stays_whole():
    """Its columns have none of their own."""
    graph = integer_graphs.post_norm(ECP5_85K, 37, 384, 12, 32, 160)
    place = next(i for i, op in enumerate(graph.operations) if op.name == "b0.q")
    by_row = replace(graph.operations[place], by_row=True)
    operations = (*graph.operations[:place], by_row, *graph.operations[place + 1 :])
    names = [
        [op.name for op in cut_pieces(g, ECP5_85K).operations if op.name.startswith("b0.q")]
        for g in (graph, replace(graph, operations=operations))
    ]
    assert len(names[0]) > 1
    assert names[1] == ["b0.q"]


def test_whoever_reads_comes_after_whoever_writes():
    graph = arranged(integer_graphs.post_norm(ECP5_85K, 128, 384, 12, 32, 1536, 1), ECP5_85K)
    made = set()
    written = {view.tensor for op in graph.operations for view in views_written(op)}
    for op in graph.operations:
        assert {view.tensor for view in views_read(op)} & written <= made
        made |= {view.tensor for view in views_written(op)}


def test_pieces_are_few_heads_and_few_live_at_once():
    """Queries, keys and values of two heads of 32 each: the least whose operands leave the port of
    local memory to others; no more than three pieces of a kind wait for their readers."""
    plain = integer_graphs.post_norm(ECP5_85K, 128, 384, 12, 32, 1536, 1)
    graph = arranged(plain, ECP5_85K)
    pieces = [n for n in graph.tensors if n not in plain.tensors]
    assert len(pieces) == 3 * 6
    assert {min(graph.tensors[n].rows, graph.tensors[n].cols) for n in pieces} == {64}
    last = {v.tensor: i for i, op in enumerate(graph.operations) for v in views_read(op)}
    first = {v.tensor: i for i, op in enumerate(graph.operations) for v in views_written(op)}
    for index in range(len(graph.operations)):
        assert sum(first[n] <= index <= last[n] for n in pieces) <= 6


def block(view):
    return np.s_[view.row : view.row + view.rows, view.col : view.col + view.cols]


def test_a_stream_keeps_its_place():
    graph = integer_graphs.post_norm(ECP5_85K, 64, 96, 3, 32, 160, 2)
    found = heirs(graph)
    assert len({heir.source for heir in found.values()}) == len(found)
    for name, heir in found.items():
        tensor = graph.tensors[name]
        read = np.full((tensor.rows, tensor.cols), -1)
        written = np.full((tensor.rows, tensor.cols), len(graph.operations))
        for index, op in enumerate(graph.operations):
            for view in views_read(op):
                if view.tensor == heir.source:
                    read[block(view)] = index
            for view in views_written(op):
                if view.tensor == name:
                    written[block(view)] = np.minimum(written[block(view)], index)
        assert heir.operations == range(written.min(), read.max() + 1)
        # An element is written when the one in its place is read for the last time, or later.
        assert (written >= read).all()
        for index in np.unique(written[written == read]):
            source, target = overwritten(graph.operations[index])
            assert (source.tensor, target.tensor) == (heir.source, name)
            assert block(source) == block(target)
    softmaxes = [op for op in graph.operations if isinstance(op, QSoftmax)]
    assert {op.target.tensor for op in softmaxes} <= found.keys()
    residuals = [op for op in graph.operations if isinstance(op, QGemm) and op.residual]
    assert any(op.out.tensor in found for op in residuals)
