"""Which rows and columns are tokens."""

from dataclasses import replace

import numpy as np
import pytest

from gateformer.compiler.graph import (
    Copy,
    Gemm,
    Graph,
    Norm,
    Role,
    Softmax,
    Tensor,
    View,
    whole,
)
from gateformer.compiler.token_axes import mark_tokens
from gateformer.spec.errors import ModelError

N, D, HEADS, SIZE = 7, 8, 2, 4


class Builder:
    def __init__(self):
        self.tensors, self.operations = {}, []

    def tensor(self, name, rows, cols, role=Role.VALUE, segment=None):
        data = np.ones((rows, cols)) if role is Role.CONSTANT else None
        self.tensors[name] = Tensor(name, rows, cols, role, segment or cols, data)
        return whole(self.tensors[name])

    def gemm(self, name, a, b, out, **options):
        self.operations.append(Gemm(name, a, b, out, **options))
        return out

    def graph(self, masks=()):
        return Graph(self.tensors, tuple(self.operations), None, masks)


def attention(extra_input_row=0):
    """Self-attention of N tokens, the first of them a constant where extra_input_row is 1."""
    g = Builder()
    x = g.tensor("x", N - extra_input_row, D, Role.INPUT)
    stream = g.tensor("stream", N, D)
    position = g.tensor("position", N, D, Role.CONSTANT)
    part = View("stream", extra_input_row, N - extra_input_row, 0, D)
    residual = replace(part, tensor="position")
    if extra_input_row:
        token = g.tensor("token", 1, D, Role.CONSTANT)
        g.operations.append(Copy("token", token, View("stream", 0, 1, 0, D)))
    g.gemm("embed", x, g.tensor("we", D, D, Role.CONSTANT), part, residual=residual)
    q, k = (g.tensor(n, N, D, segment=SIZE) for n in "qk")
    v, o = g.tensor("v", D, N), g.tensor("o", N, D, segment=SIZE)
    for out in (q, k):
        g.gemm(out.tensor, stream, g.tensor("w" + out.tensor, D, D, Role.CONSTANT), out)
    g.gemm("v", g.tensor("wv", D, D, Role.CONSTANT), stream, v, by_row=True)
    for h in range(HEADS):
        s, p = g.tensor(f"s{h}", N, N), g.tensor(f"p{h}", N, N)
        cols = {n: View(n, 0, N, h * SIZE, SIZE) for n in "qko"}
        g.gemm(f"scores{h}", cols["q"], cols["k"], s)
        g.operations.append(Softmax(f"softmax{h}", s, p, masked=True))
        g.gemm(f"mix{h}", p, View("v", h * SIZE, SIZE, 0, N), cols["o"])
    out = g.tensor("out", N, D, Role.OUTPUT)
    g.operations.append(Norm("norm", o, out, np.ones(D), np.zeros(D), 1e-5))
    return g, position


def test_attention_is_marked():
    graph = mark_tokens(attention()[0].graph())
    rows = {t.name: t.row_token for t in graph.tensors.values()}
    assert (graph.tokens, graph.least_tokens) == (N, 1)
    assert all(rows[name] == 0 for name in ("x", "stream", "position", "q", "k", "o", "out", "p1"))
    assert all(rows[name] is None for name in ("we", "wq", "wv", "v"))
    columns = {t.name for t in graph.tensors.values() if t.col_tokens}
    assert columns == {"s0", "s1", "p0", "p1", "v"}


def test_rows_may_start_at_a_later_token():
    graph = mark_tokens(attention(1)[0].graph())
    assert graph.tensors["x"].row_token == 1
    assert graph.tensors["token"].row_token is None
    assert graph.least_tokens == 1


@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_row_that_is_read_alone_must_be_there(row):
    g, _ = attention()
    head = g.tensor("head", 1, D, Role.OUTPUT)
    g.gemm("head", View("out", row, 1, 0, D), g.tensor("wh", D, D, Role.CONSTANT), head)
    graph = mark_tokens(g.graph())
    assert graph.least_tokens == row + 1
    assert graph.tensors["head"].row_token is None


def test_rows_of_several_tokens_may_be_added():
    g, _ = attention()
    one, both = g.tensor("one", 1, D), g.tensor("both", 1, D, Role.OUTPUT)
    g.gemm("one", View("out", 0, 1, 0, D), g.tensor("w1", D, D, Role.CONSTANT), one)
    second = View("out", 1, 1, 0, D)
    g.gemm("both", second, g.tensor("w2", D, D, Role.CONSTANT), both, residual=one)
    assert mark_tokens(g.graph()).least_tokens == 2


def mean_over_tokens(g):
    each, pooled = g.tensor("each", D, N), g.tensor("pooled", 1, D, Role.OUTPUT)
    g.gemm("each", g.tensor("w1", D, D, Role.CONSTANT), whole(g.tensors["out"]), each)
    g.gemm("pool", g.tensor("share", 1, N, Role.CONSTANT), each, pooled)


def token_mixing(g):
    transposed = g.tensor("transposed", D, N)
    g.gemm("t", g.tensor("w1", D, D, Role.CONSTANT), whole(g.tensors["out"]), transposed)
    mixed = g.tensor("mixed", D, 5, Role.OUTPUT)
    g.gemm("mix", transposed, g.tensor("w2", 5, N, Role.CONSTANT), mixed)


def bias_of_tokens(g):
    transposed = g.tensor("transposed", D, N, Role.OUTPUT)
    weights = g.tensor("w1", D, D, Role.CONSTANT)
    g.gemm("t", weights, whole(g.tensors["out"]), transposed, bias=np.ones(N))


def norm_over_tokens(g):
    transposed, out = g.tensor("transposed", D, N), g.tensor("n", D, N, Role.OUTPUT)
    g.gemm("t", g.tensor("w1", D, D, Role.CONSTANT), whole(g.tensors["out"]), transposed)
    g.operations.append(Norm("n", transposed, out, np.ones(N), np.zeros(N), 1e-5))


def other_length(g):
    source, target = g.tensor("short", 5, 5, Role.INPUT), g.tensor("soft", 5, 5, Role.OUTPUT)
    g.operations.append(Softmax("other", source, target, masked=True))


def shifted_order(g):
    g.operations.append(Copy("move", View("position", 0, N - 1, 0, D), View("out", 1, N - 1, 0, D)))


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        (mean_over_tokens, "'pool' sums over all tokens"),
        (token_mixing, "'mix' sums over all tokens"),
        (bias_of_tokens, "'t' has a bias for every token"),
        (norm_over_tokens, "'n' normalizes over tokens"),
        (other_length, "its softmaxes differ in length"),
        (shifted_order, "in two different orders"),
    ],
)
def test_what_needs_all_tokens_cannot_be_cut(addition, reason):
    g, _ = attention()
    addition(g)
    graph = mark_tokens(g.graph())
    assert graph.tokens is None
    assert not any(t.col_tokens or t.row_token is not None for t in graph.tensors.values())
    with pytest.raises(ModelError, match=reason):
        mark_tokens(g.graph(masks=("mask",)))


def test_without_softmax_there_are_no_tokens():
    g = Builder()
    x, y = g.tensor("x", 3, D, Role.INPUT), g.tensor("y", 3, D, Role.OUTPUT)
    g.gemm("g", x, g.tensor("w", D, D, Role.CONSTANT), y)
    assert mark_tokens(g.graph()).tokens is None


def test_a_mask_on_some_softmaxes_alone_is_refused():
    g, _ = attention()
    masked = next(op for op in g.operations if isinstance(op, Softmax))
    bare = replace(masked, masked=False, nodes=("the node",))
    g.operations[g.operations.index(masked)] = bare
    assert mark_tokens(g.graph()).tokens == N
    with pytest.raises(ModelError, match="softmax 'the node' has no attention mask while others"):
        mark_tokens(g.graph(masks=("mask",)))
