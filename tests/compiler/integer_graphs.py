"""Random integer graphs for tests of everything behind the quantizer."""

import numpy as np

from gateformer.compiler.graph import Role, View, whole
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
    Records,
)
from gateformer.spec.arithmetic import encode_scale
from gateformer.spec.config import AcceleratorConfig


class Builder:
    """Collects tensors and operations with random contents of useful magnitude."""

    def __init__(self, config: AcceleratorConfig, seed: int) -> None:
        self.config = config
        self.random = np.random.default_rng(seed)
        self.tensors: dict[str, QTensor] = {}
        self.operations: list[QOperation] = []

    def tensor(
        self, name, rows, cols, role=Role.VALUE, kind="int8", segment=None, codes=None, **marks
    ):
        """marks: row_token, col_tokens."""
        scale = 0.05 if role in (Role.INPUT, Role.OUTPUT) else None
        tensor = QTensor(name, rows, cols, role, segment or cols, kind, scale, 0, codes, **marks)
        self.tensors[name] = tensor
        return whole(tensor)

    def weights(self, name, rows, cols, segment=None):
        codes = self.random.integers(-127, 128, (rows, cols)).astype(np.int8)
        return self.tensor(name, rows, cols, Role.CONSTANT, "int8", segment, codes)

    def records(self, count, k, spread=60.0):
        """Scales that bring sums of k random products to about `spread`."""
        scales = spread / (np.sqrt(k) * 5000) * self.random.uniform(0.5, 1.5, count)
        pairs = [encode_scale(min(s, 0.9)) for s in scales]
        bias = self.random.integers(-3000, 3000, count)
        return Records(bias, np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))

    def gemm(self, name, a, b, out, **options):
        by_row = options.get("by_row", False)
        spread = options.pop("spread", 60.0)
        records = options.pop("records", None) or self.records(
            a.rows if by_row else b.rows, a.cols, spread
        )
        self.operations.append(QGemm(name, a, b, out, records, **options))
        return out

    def activation(self):
        if self.config.gelu == "polynomial":
            from gateformer.spec.arithmetic import pack_polynomial

            return pack_polynomial(160, 9000, 30000, 2, -100)
        entries = 1 << self.config.activation_bits
        return self.random.integers(-128, 128, entries).astype(np.int8)

    def norm(self, name, source, channels, int8=None, int16=None):
        def gain(view, spread):
            if view is None:
                return None
            g = self.random.integers(spread // 2, spread, channels)
            b = self.random.integers(-(1 << 16), 1 << 16, channels)
            return Gain(view, g, b, 16)

        self.operations.append(QNorm(name, source, 1000, gain(int8, 3000), gain(int16, 30000)))

    def done(self, tokens=None) -> QuantizedGraph:
        return QuantizedGraph(self.tensors, tuple(self.operations), tokens)


def product(config, m, n, k, seed=0, kind="int16"):
    """One product of an input with a constant."""
    g = Builder(config, seed)
    x = g.tensor("x", m, k, Role.INPUT)
    w = g.weights("w", n, k)
    y = g.tensor("y", m, n, Role.OUTPUT, kind)
    g.gemm("product", x, w, y, spread=60.0 if kind == "int8" else 12000.0)
    return g.done()


def encoder(config, tokens, dim, heads, size, hidden, layers=1, seed=0):
    """A pre-norm encoder with a class token, `layers` blocks, and a classifier of ten classes."""
    g = Builder(config, seed)
    patches = g.tensor("patches", tokens - 1, 5, Role.INPUT)
    position = g.random.integers(-9000, 9000, (tokens, dim)).astype(np.int16)
    g.tensor("position", tokens, dim, Role.CONSTANT, "int16", codes=position)
    g.tensor("token", 1, dim, Role.CONSTANT, "int16", codes=position[:1])
    stream = g.tensor("stream", tokens, dim, kind="int16")
    g.operations.append(QCopy("token", View("token", 0, 1, 0, dim), View("stream", 0, 1, 0, dim)))
    g.gemm(
        "embed",
        patches,
        g.weights("w.embed", dim, 5),
        View("stream", 1, tokens - 1, 0, dim),
        residual=View("position", 1, tokens - 1, 0, dim),
        spread=6000.0,
    )
    for layer in range(layers):
        stream = block(g, f"b{layer}.", stream, tokens, dim, heads, size, hidden)
    last = g.tensor("last", 1, dim)
    g.norm("norm.last", View(stream.tensor, 0, 1, 0, dim), dim, int8=last)
    logits = g.tensor("logits", 1, 10, Role.OUTPUT, "int16")
    g.gemm("classify", last, g.weights("w.classify", 10, dim), logits, spread=9000.0)
    return g.done()


def block(g, p, stream, tokens, dim, heads, size, hidden):
    """One pre-norm block; returns the view of the new stream."""
    width = heads * size
    x = g.tensor(p + "x", tokens, dim)
    g.norm(p + "norm1", stream, dim, int8=x)
    q, k = (g.tensor(p + n, tokens, width, segment=size) for n in "qk")
    for view, n in ((q, "q"), (k, "k")):
        g.gemm(p + n, x, g.weights(p + "w." + n, width, dim), view)
    v = g.tensor(p + "v", width, tokens)
    g.gemm(p + "v", g.weights(p + "w.v", width, dim), x, v, by_row=True)
    o = g.tensor(p + "o", tokens, width, segment=size)
    for h in range(heads):
        n = f"{p}h{h}."
        s, pr = g.tensor(n + "s", tokens, tokens), g.tensor(n + "p", tokens, tokens)
        r = g.tensor(n + "r", tokens, 1, kind="record")
        part = {name: View(p + name, 0, tokens, h * size, size) for name in "qko"}
        scores = g.records(1, size)
        g.gemm(
            n + "scores",
            part["q"],
            part["k"],
            s,
            records=Records(
                *(np.repeat(a, tokens) for a in (scores.bias, scores.multiplier, scores.selector))
            ),
        )
        table = np.rint(127 * np.exp(-0.04 * np.arange(256))).astype(np.uint8)
        g.operations.append(QSoftmax(n + "softmax", s, pr, r.tensor, table, 1 << 28, tokens))
        vh = View(p + "v", h * size, size, 0, tokens)
        g.gemm(n + "mix", pr, vh, part["o"], records=r.tensor)
    s2 = g.tensor(p + "s2", tokens, dim, kind="int16")
    weights = g.weights(p + "w.o", dim, width, segment=size)
    g.gemm(p + "out", o, weights, s2, residual=stream, spread=3000.0)
    x2 = g.tensor(p + "x2", tokens, dim)
    g.norm(p + "norm2", s2, dim, int8=x2)
    h1 = g.tensor(p + "h", tokens, hidden)
    g.gemm(p + "up", x2, g.weights(p + "w.up", hidden, dim), h1, activation=g.activation())
    s3 = g.tensor(p + "s3", tokens, dim, kind="int16")
    g.gemm(p + "down", h1, g.weights(p + "w.down", dim, hidden), s3, residual=s2, spread=3000.0)
    return s3


def post_norm(config, tokens, dim, heads, size, hidden, layers=1, seed=0):
    """BERT's encoder: embeddings come in as int16, each block norms after it adds. A runtime length
    can cut the tokens."""
    g = Builder(config, seed)
    x = g.tensor("x", tokens, dim, Role.INPUT, "int16", row_token=0)
    stream = g.tensor("stream", tokens, dim, kind="int16", row_token=0)
    codes = g.tensor("codes", tokens, dim, row_token=0)
    g.norm("norm", x, dim, int8=codes, int16=stream)
    for layer in range(layers):
        last = layer == layers - 1
        stream, codes = post_norm_block(
            g, f"b{layer}.", stream, codes, tokens, dim, heads, size, hidden, last
        )
    return g.done(tokens)


def post_norm_block(g, p, stream, codes, tokens, dim, heads, size, hidden, last):
    """One post-norm block; returns the views of its two outputs, int16 and int8."""
    width = heads * size
    rows = {"row_token": 0}
    q, k, o = (g.tensor(p + n, tokens, width, segment=size, **rows) for n in "qko")
    for view, n in ((q, "q"), (k, "k")):
        g.gemm(p + n, codes, g.weights(p + "w." + n, width, dim), view)
    v = g.tensor(p + "v", width, tokens, col_tokens=True)
    g.gemm(p + "v", g.weights(p + "w.v", width, dim), codes, v, by_row=True)
    table = np.rint(127 * np.exp(-0.04 * np.arange(256))).astype(np.uint8)
    for h in range(heads):
        n = f"{p}h{h}."
        s, pr = (g.tensor(n + x, tokens, tokens, col_tokens=True, **rows) for x in "sp")
        r = g.tensor(n + "r", tokens, 1, kind="record", **rows)
        part = {x.tensor: View(x.tensor, 0, tokens, h * size, size) for x in (q, k, o)}
        g.gemm(n + "scores", part[p + "q"], part[p + "k"], s)
        g.operations.append(QSoftmax(n + "softmax", s, pr, r.tensor, table, 1 << 28, tokens))
        vh = View(v.tensor, h * size, size, 0, tokens)
        g.gemm(n + "mix", pr, vh, part[p + "o"], records=r.tensor)
    sum1 = g.tensor(p + "sum1", tokens, dim, kind="int16", **rows)
    weights = g.weights(p + "w.o", dim, width, segment=size)
    g.gemm(p + "out", o, weights, sum1, residual=stream, spread=3000.0)
    stream = g.tensor(p + "stream", tokens, dim, kind="int16", **rows)
    codes = g.tensor(p + "codes", tokens, dim, **rows)
    g.norm(p + "norm1", sum1, dim, int8=codes, int16=stream)
    h1 = g.tensor(p + "hidden", tokens, hidden, **rows)
    g.gemm(p + "up", codes, g.weights(p + "w.up", hidden, dim), h1, activation=g.activation())
    sum2 = g.tensor(p + "sum2", tokens, dim, kind="int16", **rows)
    down = g.weights(p + "w.down", dim, hidden)
    g.gemm(p + "down", h1, down, sum2, residual=stream, spread=3000.0)
    role = Role.OUTPUT if last else Role.VALUE
    stream = g.tensor(p + "stream2", tokens, dim, role, "int16", **rows)
    codes = None if last else g.tensor(p + "codes2", tokens, dim, **rows)
    g.norm(p + "norm2", sum2, dim, int8=codes, int16=stream)
    return stream, codes
