"""Attention in bands of queries."""

from dataclasses import replace

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.attention_bands import cut_attention
from gateformer.compiler.batching import batch
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.quantized import QGemm, QSoftmax
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import ECP5_85K

TIGHT = ECP5_85K.replace(local_kib=24)
"""Scores of 70 queries and keys are more than a fifth of it, those of 64 are not."""


def encoder(tokens=70, layers=1):
    return integer_graphs.post_norm(TIGHT, tokens, 48, 2, 24, 64, layers, seed=5)


def outputs(graph, lengths, seed=1):
    x = graph.tensors["x"]
    codes = np.random.default_rng(seed).integers(-3000, 3000, (x.rows, x.cols))
    found = run_quantized(graph, {"x": codes}, TIGHT, lengths)
    (name,) = (t.name for t in graph.tensors.values() if t.role.name == "OUTPUT")
    return found[name]


@pytest.mark.parametrize("tokens", [70, 97, 128])
def test_bands_compute_the_same(tokens):
    graph = encoder(tokens)
    cut = cut_attention(graph, TIGHT)
    assert len(cut.operations) > len(graph.operations)
    assert cut.macs == graph.macs
    for length in (1, 32, 33, tokens):
        expected, seen = (outputs(g, [length]) for g in (graph, cut))
        assert np.array_equal(seen[:length], expected[:length])


def test_causal_bands_count_from_their_first_query():
    graph = encoder(70)
    causal = [
        replace(op, causal=True, bound=1) if isinstance(op, QSoftmax) else op
        for op in graph.operations
    ]
    graph = replace(graph, operations=tuple(causal))
    cut = cut_attention(graph, TIGHT)
    bounds = [op.bound for op in cut.operations if isinstance(op, QSoftmax)]
    assert bounds == 2 * [1, 33]
    assert np.array_equal(outputs(cut, [70]), outputs(graph, [70]))
    assert not np.array_equal(outputs(encoder(70), [70]), outputs(graph, [70]))


def test_a_batch_has_bands_in_every_sample():
    graph = batch(encoder(70), 2, TIGHT)
    cut = cut_attention(graph, TIGHT)
    assert len([op for op in cut.operations if isinstance(op, QSoftmax)]) == 2 * 2 * 2
    for lengths in ([70, 70], [33, 1], [0, 65]):
        expected, seen = (outputs(g, lengths) for g in (graph, cut))
        for sample, length in enumerate(lengths):
            rows = slice(70 * sample, 70 * sample + length)
            assert np.array_equal(seen[rows], expected[rows])


def test_a_band_is_used_up_before_the_next_one_is_made():
    cut = cut_attention(encoder(97), TIGHT)
    names = [op.name for op in order_operations(cut, TIGHT).operations]
    for first, second in (("row0", "row32"), ("row32", "row64")):
        assert names.index(f"b0.h0.softmax/{first}") < names.index(f"b0.h0.scores/{second}")
    rows = [op.out.rows for op in cut.operations if op.name.startswith("b0.h0.mix")]
    assert rows == [32, 32, 32, 1]
    assert all(
        op.b.rows == 24 for op in cut.operations if isinstance(op, QGemm) and "mix" in op.name
    )


@pytest.mark.parametrize("tokens", [1, 64])
def test_small_scores_stay_whole(tokens):
    graph = encoder(tokens)
    assert cut_attention(graph, TIGHT) is graph


def test_scores_with_records_by_row_stay_whole():
    graph = encoder(70)
    scores = next(op for op in graph.operations if op.name == "b0.h0.scores")
    operations = tuple(replace(op, by_row=True) if op is scores else op for op in graph.operations)
    cut = cut_attention(replace(graph, operations=operations), TIGHT)
    softmaxes = [op.name for op in cut.operations if isinstance(op, QSoftmax)]
    assert softmaxes == ["b0.h0.softmax", "b0.h1.softmax/row0", "b0.h1.softmax/row32"]


def test_scores_that_something_else_reads_stay_whole():
    graph = encoder(70)
    index = next(i for i, op in enumerate(graph.operations) if isinstance(op, QSoftmax))
    twice = replace(graph.operations[index + 1], name="again")
    operations = (*graph.operations[: index + 2], twice, *graph.operations[index + 2 :])
    cut = cut_attention(replace(graph, operations=operations), TIGHT)
    softmaxes = [op.name for op in cut.operations if isinstance(op, QSoftmax)]
    assert softmaxes == ["b0.h0.softmax", "b0.h1.softmax/row0", "b0.h1.softmax/row32"]
