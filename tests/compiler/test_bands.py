"""Feed-forward parts in bands of rows."""

from itertools import pairwise

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.bands import cut_bands
from gateformer.compiler.batching import batch
from gateformer.compiler.in_place import heirs
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.quantized import QGemm, QNorm
from gateformer.compiler.spilling import plan_memory
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import ECP5_85K, SMALL

TIGHT = ECP5_85K.replace(local_kib=32)
"""Does not hold the 70 x 256 hidden values of the encoder below beside its stream."""


def encoder(tokens=70, hidden=256, layers=2):
    return integer_graphs.post_norm(TIGHT, tokens, 64, 2, 32, hidden, layers, seed=3)


def products(graph, name):
    return [op for op in graph.operations if isinstance(op, QGemm) and op.name.startswith(name)]


def codes_of(graph, seed):
    random = np.random.default_rng(seed)
    shape = graph.tensors["x"].rows, graph.tensors["x"].cols
    return {"x": random.integers(-3000, 3000, shape)}


@pytest.mark.parametrize("tokens", [64, 70, 100])
def test_bands_compute_the_same(tokens):
    graph = encoder(tokens)
    other = cut_bands(graph, TIGHT.replace(local_kib={64: 24, 70: 32, 100: 44}[tokens]))
    assert len(other.operations) > len(graph.operations)
    assert other.macs == graph.macs
    codes = codes_of(graph, 1)
    for length in (1, 31, 33, tokens):
        expected = run_quantized(graph, codes, TIGHT, [length])
        seen = run_quantized(other, codes, TIGHT, [length])
        for name in (t.name for t in graph.tensors.values() if t.role.name == "OUTPUT"):
            assert np.array_equal(seen[name][:length], expected[name][:length])


def test_a_band_is_used_up_before_the_next_one_is_made():
    plain = integer_graphs.encoder(ECP5_85K, 197, 192, 3, 64, 768)
    graph = order_operations(cut_bands(plain, ECP5_85K), ECP5_85K)
    order = [op.name for op in graph.operations]
    ups = [order.index(op.name) for op in products(graph, "b0.up")]
    downs = [order.index(op.name) for op in products(graph, "b0.down")]
    assert len(ups) == len(downs) == 2
    assert ups[0] < downs[0] < ups[1] < downs[1]


def test_bands_are_whole_groups_of_rows():
    graph = cut_bands(encoder(), TIGHT)
    rows = [(op.out.row, op.out.rows) for op in products(graph, "b0.down")]
    assert rows == [(0, 32), (32, 38)]
    norms = [op.source for op in graph.operations if isinstance(op, QNorm) and "norm2" in op.name]
    assert [(v.row, v.rows) for v in norms] == 2 * rows


def test_a_batch_is_cut_between_samples():
    config = TIGHT.replace(local_kib=24)
    graph = batch(encoder(tokens=16), 4, config)
    other = cut_bands(graph, config)
    hidden = [t for t in other.tensors.values() if t.name.startswith("b0.hidden")]
    assert [(t.sample, t.samples, t.rows, t.row_token) for t in hidden] == [
        (0, 2, 32, 0),
        (2, 2, 32, 0),
    ]
    codes, lengths = codes_of(graph, 2), [16, 1, 9, 16]
    expected = run_quantized(graph, codes, config, lengths)
    seen = run_quantized(other, codes, config, lengths)
    (name,) = (t.name for t in graph.tensors.values() if t.role.name == "OUTPUT")
    for sample, length in enumerate(lengths):
        rows = slice(16 * sample, 16 * sample + length)
        assert np.array_equal(seen[name][rows], expected[name][rows])


@pytest.mark.parametrize(
    ("config", "tokens", "why"),
    [
        (ECP5_85K, 70, "the hidden values fit"),
        (TIGHT, 48, "the hidden values fit"),
        (TIGHT.replace(local_kib=16), 70, "weights of three bands are more than the values"),
        (TIGHT.replace(dram="readonly"), 70, "there is no DRAM to write"),
        (SMALL.replace(local_kib=24), 1, "one row cannot be cut"),
    ],
    ids=str,
)
def test_what_stays_whole(config, tokens, why):
    graph = encoder(tokens)
    assert cut_bands(graph, config) is graph, why


def test_bands_that_keep_the_array_busy_may_be_many():
    """Weights may come again where a band has rows enough for each of their bytes; what no room
    is left for beside the hidden values passes through DRAM."""
    graph = integer_graphs.post_norm(ECP5_85K, 512, 256, 4, 64, 1024)
    rows = [op.out.rows for op in products(cut_bands(graph, ECP5_85K), "b0.up")]
    assert rows == [64, 96, 96, 64, 96, 96]
    narrow = integer_graphs.post_norm(ECP5_85K, 128, 768, 12, 64, 3072)
    assert cut_bands(narrow, ECP5_85K) is narrow


def test_no_tensor_has_more_than_a_bands_hidden_values():
    """The stream is written over its old values band by band, the norm's result likewise."""
    graph = order_operations(cut_bands(encoder(), TIGHT), TIGHT)
    found = heirs(graph)
    assert found["b0.sum2"].source == "b0.stream"
    first, last = (op.name for op in products(graph, "b0.down"))
    names = [op.name for op in graph.operations]
    assert found["b0.sum2"].operations == range(names.index(first), names.index(last) + 1)
    plan = plan_memory(graph, TIGHT)
    for index, free in enumerate(plan.free):
        assert all(a.stop < b.start for a, b in pairwise(free.ranges)), index
        assert len(free) >= TIGHT.local_words - plan.floors[index]
