"""Small transformers as ONNX files, in the many forms in which exporters write them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DIM, HEADS, HEAD, TOKENS, PATCHES, HIDDEN, CLASSES = 24, 3, 8, 10, 9, 40, 5


class Builder:
    """An ONNX graph in the making. Every method returns the name of what it makes."""

    def __init__(self, opset: int, seed: int = 0) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, array: np.ndarray | float | list[int]) -> str:
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.random.normal(0, scale, shape))

    def op(self, operator: str, *inputs: str, **attributes: object) -> str:
        return self.ops(operator, 1, *inputs, **attributes)[0]

    def ops(self, operator: str, count: int, *inputs: str, **attributes: object) -> list[str]:
        index = len(self.nodes)
        outputs = [f"{operator}_{index}_{i}" for i in range(count)]
        name = f"node_{index}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(np.array(shape, np.int64)))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)

    def linear(self, x: str, k: int, n: int, *, bias: bool = True) -> str:
        product = self.op("MatMul", x, self.normal(k, n, scale=k**-0.5))
        return self.op("Add", self.normal(n, scale=0.1), product) if bias else product

    def reduce_mean(self, x: str, axis: int, keepdims: int = 1) -> str:
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=[axis], keepdims=keepdims)
        axes = self.constant(np.array([axis], np.int64))
        return self.op("ReduceMean", x, axes, keepdims=keepdims)

    def model(self, outputs: dict[str, list[int | str]]) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "model", self.inputs, values, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@dataclass(frozen=True)
class Form:
    """How a transformer is written."""

    opset: int = 17
    layers: int = 2
    norm: str = "whole"
    activation: str = "erf"
    qkv: str = "separate"
    scale: str = "scores mul"
    token: str = "constant"
    head: str = "gather"
    order: str = "pre"
    linear: str = "matmul"
    bias: bool = True
    layer_scale: bool = False
    dynamic: bool = False


def _norm(b: Builder, form: Form, x: str) -> str:
    gain, bias = b.constant(b.random.normal(1, 0.2, DIM)), b.normal(DIM, scale=0.2)
    if form.norm == "whole":
        return b.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-5)
    centered = b.op("Sub", x, b.reduce_mean(x, -1))
    if form.norm == "parts":
        square = b.op("Pow", centered, b.constant(2.0))
    else:
        square = b.op("Mul", centered, centered)
    variance = b.op("Add", b.reduce_mean(square, -1), b.constant(1e-5))
    deviation = b.op("Sqrt", variance)
    if form.norm == "parts":
        quotient = b.op("Div", centered, deviation)
    else:
        quotient = b.op("Mul", centered, b.op("Reciprocal", deviation))
    return b.op("Add", b.op("Mul", quotient, gain), bias)


def _activation(b: Builder, form: Form, x: str) -> str:
    match form.activation:
        case "erf":
            inner = b.op("Erf", b.op("Div", x, b.constant(2**0.5)))
            product = b.op("Mul", x, b.op("Add", inner, b.constant(1.0)))
            return b.op("Mul", product, b.constant(0.5))
        case "erf early half":
            inner = b.op("Erf", b.op("Mul", x, b.constant(0.5**0.5)))
            half = b.op("Mul", b.constant(0.5), x)
            return b.op("Mul", b.op("Add", b.constant(1.0), inner), half)
        case "tanh form":
            power = b.op("Pow", x, b.constant(3.0))
            if form.opset < 17:
                power = b.op("Mul", x, b.op("Mul", x, x))
            cube = b.op("Mul", power, b.constant(0.044715))
            line = b.op("Mul", b.op("Add", x, cube), b.constant((2 / np.pi) ** 0.5))
            factor = b.op("Add", b.op("Tanh", line), b.constant(1.0))
            return b.op("Mul", b.op("Mul", x, b.constant(0.5)), factor)
        case "silu":
            return b.op("Mul", x, b.op("Sigmoid", x))
        case "quick":
            return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, b.constant(1.702))))
    return b.op(form.activation, x)


def _linear(b: Builder, form: Form, x: str, k: int, n: int) -> str:
    if form.linear == "matmul":
        return b.linear(x, k, n, bias=form.bias)
    flat = b.reshape(x, -1, k)
    inputs = [flat, b.normal(n, k, scale=k**-0.5)] + [b.normal(n, scale=0.1)] * form.bias
    return b.reshape(b.op("Gemm", *inputs, transB=1, alpha=1.0), 1, -1, n)


def _heads(b: Builder, form: Form, x: str) -> tuple[str, str, str]:
    """Queries [1, HEADS, T, HEAD], keys [1, HEADS, HEAD, T], values like queries."""
    if form.qkv == "separate":
        q, k, v = (_linear(b, form, x, DIM, DIM) for _ in range(3))
    else:
        fused = _linear(b, form, x, DIM, 3 * DIM)
        if form.qkv == "five axes":
            split = b.transpose(b.reshape(fused, 1, TOKENS, 3, HEADS, HEAD), 2, 0, 3, 1, 4)
            q, k, v = (b.op("Gather", split, b.constant(np.array(i)), axis=0) for i in range(3))
            return q, b.transpose(k, 0, 1, 3, 2), v
        if form.qkv == "by head":
            split = b.transpose(b.reshape(fused, 1, TOKENS, HEADS, 3, HEAD), 3, 0, 2, 1, 4)
            parts = b.ops("Split", 3, split, axis=0)
            axes = b.constant(np.array([0]))
            q, k, v = (b.op("Squeeze", part, axes) for part in parts)
            return q, b.op("Transpose", k, perm=[0, 1, 3, 2]), v
        if form.qkv == "split":
            q, k, v = b.ops("Split", 3, fused, b.constant(np.array([DIM] * 3)), axis=-1)
        else:
            q, k, v = (
                b.op(
                    "Slice",
                    fused,
                    *(b.constant(np.array([n])) for n in (i * DIM, i * DIM + DIM, 2)),
                )
                for i in range(3)
            )
    if form.qkv == "interleaved":
        return _interleaved(b, q, k, v)
    q, v = (b.transpose(b.reshape(t, 1, TOKENS, HEADS, HEAD), 0, 2, 1, 3) for t in (q, v))
    return q, b.transpose(b.reshape(k, 1, TOKENS, HEADS, HEAD), 0, 2, 3, 1), v


def _interleaved(b: Builder, q: str, k: str, v: str) -> tuple[str, str, str]:
    """Heads whose columns are not next to each other."""
    q, k, v = (b.reshape(t, 1, TOKENS, HEAD, HEADS) for t in (q, k, v))
    return b.transpose(q, 0, 3, 1, 2), b.transpose(k, 0, 3, 2, 1), b.transpose(v, 0, 3, 1, 2)


def _attention(b: Builder, form: Form, x: str) -> str:
    q, k, v = _heads(b, form, x)
    root = HEAD**-0.25
    if form.scale == "q mul":
        q = b.op("Mul", q, b.constant(HEAD**-0.5))
    elif form.scale == "both":
        q, k = (b.op("Mul", t, b.constant(root)) for t in (q, k))
    scores = b.op("MatMul", q, k)
    if form.scale == "scores mul":
        scores = b.op("Mul", scores, b.constant(HEAD**-0.5))
    elif form.scale == "scores div":
        scores = b.op("Div", scores, b.constant(HEAD**0.5))
    mixed = b.op("MatMul", b.op("Dropout", b.op("Softmax", scores, axis=3)), v)
    if form.qkv == "interleaved":
        joined = b.transpose(mixed, 0, 2, 3, 1)
    else:
        joined = b.transpose(mixed, 0, 2, 1, 3)
    return _linear(b, form, b.reshape(joined, 1, TOKENS, DIM), DIM, DIM)


def _layer(b: Builder, form: Form, x: str) -> str:
    branches: list[Callable[[Builder, Form, str], str]] = [
        _attention,
        lambda b, form, y: _linear(
            b, form, _activation(b, form, _linear(b, form, y, DIM, HIDDEN)), HIDDEN, DIM
        ),
    ]
    if form.order == "parallel":
        y = _norm(b, form, x)
        return b.op("Add", b.op("Add", branches[0](b, form, y), branches[1](b, form, y)), x)
    for branch in branches:
        y = branch(b, form, _norm(b, form, x) if form.order == "pre" else x)
        if form.layer_scale:
            y = b.op("Mul", y, b.normal(DIM))
        x = b.op("Add", x, y) if form.order == "pre" else b.op("Add", y, x)
        if form.order == "post":
            x = _norm(b, form, x)
    return x


def _embedding(b: Builder, form: Form) -> str:
    image = b.input("image", ["batch" if form.dynamic else 1, 2, 6, 6])
    kernel = b.normal(DIM, 2, 2, 2, scale=0.5)
    bias = b.normal(DIM, scale=0.1)
    conv = b.op("Conv", image, kernel, bias, kernel_shape=[2, 2], strides=[2, 2])
    if form.dynamic:
        shape = b.op("Shape", conv)
        batch = b.op("Gather", shape, b.constant(np.array(0)), axis=0)
        batch = b.op("Unsqueeze", batch, b.constant(np.array([0])))
        target = b.op("Concat", batch, b.constant(np.array([DIM, -1])), axis=0)
        patches = b.transpose(b.op("Reshape", conv, target), 0, 2, 1)
    else:
        patches = b.transpose(b.op("Reshape", conv, b.constant([1, DIM, PATCHES])), 0, 2, 1)
    token = b.normal(1, 1, DIM)
    if form.token == "expand":
        shape = b.op("Shape", patches)
        batch = b.op("Slice", shape, b.constant(np.array([0])), b.constant(np.array([1])))
        ends = b.constant(np.array([-1, -1]))
        target = b.op("Concat", batch, ends, axis=0)
        ones = b.constant(np.ones(3, np.int64))
        unknown = b.op("Equal", target, b.constant(-np.ones(3, np.int64)))
        known = b.op("Where", unknown, ones, target)
        token = b.op("Expand", token, known)
    x = b.op("Concat", b.op("Identity", token), patches, axis=1)
    x = b.op("Add", x, b.normal(1, TOKENS, DIM, scale=0.3))
    return _norm(b, form, x) if form.order == "post" else x


def _head(b: Builder, form: Form, x: str) -> tuple[str, list[int | str]]:
    if form.head == "tokens":
        return x, [1, TOKENS, DIM]
    if form.head == "gather":
        x = b.op("Gather", x, b.constant(np.array(0)), axis=1)
    elif form.head == "slice":
        x = b.op("Slice", x, *(b.constant(np.array([n])) for n in (0, 1, 1)))
        x = b.op("Flatten", b.op("Squeeze", x, b.constant(np.array([1]))))
    elif form.head == "mean":
        x = b.reduce_mean(x, 1, keepdims=0)
    elif form.head == "pooled":
        x = b.reduce_mean(x, 1, keepdims=0)
        norm = b.op("ReduceL2", x, axes=[1], keepdims=1)
        return b.op("Div", x, norm), [1, DIM]
    logits = b.op("Gemm", x, b.normal(CLASSES, DIM, scale=0.5), b.normal(CLASSES), transB=1)
    if form.head == "softmax":
        return b.op("Softmax", b.op("Flatten", logits), axis=-1), [1, CLASSES]
    return logits, [1, CLASSES]


def transformer(form: Form) -> onnx.ModelProto:
    """A vision transformer; its output's name is that of the last node's output."""
    b = Builder(form.opset)
    x = _embedding(b, form)
    for _ in range(form.layers):
        x = _layer(b, form, x)
    if form.order != "post":
        x = _norm(b, form, x)
    if form.head == "softmax":
        x = b.op("Gather", x, b.constant(np.array(0)), axis=1)
    output, shape = _head(b, form, x)
    return b.model({output: shape})


@pytest.fixture(name="transformer")
def _transformer(tmp_path: Path) -> Callable[..., Path]:
    """Writes a transformer in a form given by keyword and returns its path."""

    def write(**form: object) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(transformer(Form(**form)), path)
        return path

    return write


@pytest.fixture(name="builder")
def _builder() -> Callable[..., Builder]:
    return Builder
