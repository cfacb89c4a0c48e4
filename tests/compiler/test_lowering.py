"""The float Graph computes what onnxruntime computes, however the model is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from gateformer.compiler.float_execution import run_float
from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Role, Softmax
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.spec.errors import ModelError

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
IMAGE = {"image": (1, 2, 6, 6)}


def run_graph(graph: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The model's outputs by way of both host models and the float graph."""
    tensors = run_float(graph, HostRunner(graph.host.before).run(inputs))
    outputs = {n: tensors[n] for n, t in graph.tensors.items() if t.role == Role.OUTPUT}
    return list(HostRunner(graph.host.after).run({**inputs, **outputs}).values())


def compare(path: Path, graph: Graph, inputs: dict[str, np.ndarray]) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    for value, reference in zip(run_graph(graph, inputs), expected, strict=True):
        assert value.shape == reference.shape
        assert np.abs(value - reference).max() < 1e-4


def image(seed: int = 1) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).normal(0, 1, (1, 2, 6, 6)).astype(np.float32)}


def count(graph: Graph) -> dict[type, int]:
    kinds = [type(op) for op in graph.operations]
    return {kind: kinds.count(kind) for kind in (Gemm, Softmax, Norm, Copy)}


def check_views(graph: Graph) -> None:
    """Every view lies in its tensor and takes one segment or all columns."""
    for op in graph.operations:
        for view in vars(op).values():
            if hasattr(view, "tensor"):
                tensor = graph.tensors[view.tensor]
                assert 0 <= view.row < view.row + view.rows <= tensor.rows
                one = view.cols == tensor.segment and view.col % tensor.segment == 0
                assert one or (view.col, view.cols) == (0, tensor.cols)
                assert tensor.cols % tensor.segment == 0
                assert all(type(n) is int for n in (view.row, view.rows, view.col, view.cols))


FORMS = [
    {},
    {"norm": "parts"},
    {"norm": "products", "opset": 18},
    {"norm": "parts", "opset": 13},
    {"activation": "erf early half"},
    {"activation": "Gelu", "opset": 20},
    {"activation": "tanh form"},
    {"activation": "tanh form", "norm": "parts", "opset": 14},
    {"activation": "Relu"},
    {"activation": "silu"},
    {"activation": "quick"},
    {"activation": "Tanh"},
    {"activation": "Elu"},
    {"activation": "LeakyRelu"},
    {"activation": "Mish", "opset": 18},
    {"activation": "Softplus"},
    {"qkv": "five axes"},
    {"qkv": "split"},
    {"qkv": "slice"},
    {"qkv": "by head"},
    {"qkv": "interleaved"},
    {"qkv": "five axes", "scale": "q mul"},
    {"scale": "scores div"},
    {"scale": "q mul"},
    {"scale": "both"},
    {"scale": "none"},
    {"token": "expand"},
    {"dynamic": True},
    {"dynamic": True, "token": "expand", "qkv": "five axes", "scale": "q mul"},
    {"head": "slice"},
    {"head": "mean"},
    {"head": "pooled"},
    {"head": "softmax"},
    {"head": "tokens"},
    {"order": "post", "head": "gather"},
    {"order": "post", "head": "tokens"},
    {"order": "parallel"},
    {"linear": "gemm"},
    {"linear": "gemm", "bias": False},
    {"bias": False},
    {"layer_scale": True},
    {"opset": 21, "norm": "products"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form(form: dict[str, object], transformer: Callable[..., Path]) -> None:
    path = transformer(**form)
    graph = lower(import_model(path, IMAGE if form.get("dynamic") else None))
    compare(path, graph, image())
    check_views(graph)
    for model in (graph.host.before, graph.host.after):
        onnx.checker.check_model(model, full_check=True)


def test_digits() -> None:
    graph = lower(import_model(DIGITS / "digits.onnx"))
    for sample in np.load(DIGITS / "calibration.npz")["image"][:4]:
        compare(DIGITS / "digits.onnx", graph, {"image": sample})
    check_views(graph)
    assert count(graph) == {Gemm: 2 * (6 + 6) + 2, Softmax: 6, Norm: 5, Copy: 1}
    assert [op.operator for op in graph.host.operations] == ["Conv"]


def test_unread_rows_are_not_computed() -> None:
    """After the last attention only the class token is read; keys and values need every row."""
    graph = lower(import_model(DIGITS / "digits.onnx"))
    last = [op for op in graph.operations if isinstance(op, Gemm)][-13:]
    assert [op.out.rows for op in last if op.b.tensor.endswith("weight")] == [1, 17, 1, 1, 1, 1]
    assert sum(op.by_row for op in last) == 1


def test_fused_projection_falls_into_three(transformer: Callable[..., Path]) -> None:
    graph = lower(import_model(transformer(qkv="five axes", layers=1, head="tokens")))
    weights = [t for name, t in graph.tensors.items() if name.endswith("weight")]
    assert [(w.rows, w.cols, w.segment) for w in weights] == [
        (24, 8, 8),
        (24, 24, 24),
        (24, 24, 24),
        (24, 24, 24),
        (24, 24, 8),
        (40, 24, 24),
        (24, 40, 40),
    ]


Build = Callable[..., Any]


def saved(b: Any, outputs: dict[str, list[int | str]], tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(b.model(outputs), path)
    return path


def tokens(seed: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (1, 6, 8)).astype(np.float32)}


def started(builder: Build, opset: int = 17) -> tuple[Any, str]:
    """A builder with input tokens and a first product."""
    b = builder(opset)
    return b, b.linear(b.input("x", [1, 6, 8]), 8, 8)


def test_node_in_the_middle(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    y = b.op("Sin", x)
    path = saved(b, {b.linear(y, 8, 4): [1, 6, 4]}, tmp_path)
    with pytest.raises(ModelError, match=r"node 'node_2' \(operator 'Sin'\): no engine"):
        lower(import_model(path))


def test_node_at_the_end(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    y = b.op("ReduceMax", b.op("Sin", x), axes=[1], keepdims=0)
    path = saved(b, {y: [1, 8], x: [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert [op.node for op in graph.host.operations] == ["node_2", "node_3"]


def test_nodes_at_the_start(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    image = b.op("Mul", b.input("image", [1, 2, 6, 6]), b.constant(0.5))
    y = b.op("Conv", image, b.normal(4, 2, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = b.transpose(b.reshape(b.op("Relu", y), 1, 4, 36), 0, 2, 1)
    path = saved(b, {b.linear(y, 4, 3): [1, 36, 3]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, image_of(path))
    operators = [op.operator for op in graph.host.operations]
    assert operators == ["Mul", "Conv", "Relu", "Reshape", "Transpose"]
    assert "padding" in graph.host.operations[1].reason


def image_of(path: Path) -> dict[str, np.ndarray]:
    return image(len(path.name))


def test_input_in_both_integer_forms(builder: Build, tmp_path: Path) -> None:
    """What is added and what is multiplied need different codes: two tensors from the host."""
    b = builder(17)
    x = b.input("x", [1, 6, 8])
    path = saved(b, {b.op("Add", x, b.linear(x, 8, 8)): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert sum(t.role == Role.INPUT for t in graph.tensors.values()) == 2


def test_product_of_two_tensors_element_by_element(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    y = b.op("Mul", x, b.linear(b.op("LayerNormalization", x, b.constant(np.ones(8))), 8, 8))
    path = saved(b, {b.linear(y, 8, 4): [1, 6, 4]}, tmp_path)
    with pytest.raises(ModelError, match=r"operator 'Mul'\): no engine multiplies"):
        lower(import_model(path))


def test_what_the_reference_implementation_cannot_do(builder: Build, tmp_path: Path) -> None:
    """It takes no negative axis of GatherElements where sizes differ."""
    b, x = started(builder)
    y = b.op("GatherElements", x, b.constant(np.zeros((1, 6, 5), np.int64)), axis=-1)
    path = saved(b, {b.linear(y, 5, 4): [1, 6, 4]}, tmp_path)
    with pytest.raises(ModelError, match=r"^node '.*' \(operator 'GatherElements'\): it cannot be"):
        lower(import_model(path))


@pytest.mark.parametrize(
    "operator", ["Sum of three", "Where", "CumSum", "unknown function", "Pow of a vector"]
)
def test_refused_by_name(operator: str, builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    match operator:
        case "Sum of three":
            y = b.op("Sum", x, x, x)
        case "Where":
            y = b.op("Where", b.constant(np.eye(6, 8, dtype=bool)), x, x)
        case "CumSum":
            y = b.op("CumSum", x, b.constant(np.array(1)))
        case "Pow of a vector":
            y = b.op("Pow", x, b.normal(8))
        case _:
            y = b.op("Exp", x)
    path = saved(b, {b.linear(y, 8, 4): [1, 6, 4]}, tmp_path)
    with pytest.raises(ModelError, match=r"^node 'node_2' \(operator '\w+'\): no "):
        lower(import_model(path))


def test_softmax_over_another_axis(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    y = b.op("MatMul", b.op("Softmax", b.op("MatMul", x, b.transpose(x, 0, 2, 1)), axis=1), x)
    path = saved(b, {y: [1, 6, 8]}, tmp_path)
    with pytest.raises(ModelError, match="last axis"):
        lower(import_model(path))


REFUSED_USES = {
    "mask": "causal attention: not yet",
    "sum": "no norm has scaled down",
    "activation in the stream": "result of an activation",
    "softmax into weights": "goes only into a product",
    "softmax on the right": "left operand",
    "bias after softmax": "bias or an activation",
}


@pytest.mark.parametrize("use", REFUSED_USES)
def test_refused_uses(use: str, builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    match use:
        case "mask":
            scores = b.op("Add", scores, b.constant(np.triu(np.full((6, 6), -1e9), 1)))
            y = b.op("MatMul", b.op("Softmax", scores), x)
        case "sum":
            y = b.op("Add", x, b.linear(x, 8, 8))
        case "activation in the stream":
            y = b.op("LayerNormalization", b.op("Relu", x), b.constant(np.ones(8)))
        case "softmax into weights":
            y = b.op("MatMul", b.op("Softmax", scores), b.normal(6, 8))
        case "softmax on the right":
            y = b.op("MatMul", x, b.op("Softmax", b.op("MatMul", b.transpose(x, 0, 2, 1), x)))
        case _:
            y = b.op("Add", b.op("MatMul", b.op("Softmax", scores), x), b.normal(8))
    path = saved(b, {b.linear(y, 8, 4): [1, 6, 4]}, tmp_path)
    with pytest.raises(ModelError, match=rf"^node .*{REFUSED_USES[use]}"):
        lower(import_model(path))


def test_product_read_in_both_integer_forms(builder: Build, tmp_path: Path) -> None:
    """It is computed twice: products write int8 or int16."""
    b, x = started(builder)
    path = saved(b, {b.op("Add", x, b.linear(x, 8, 8)): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert count(graph)[Gemm] == 3


def test_grouped_queries(builder: Build, tmp_path: Path) -> None:
    """Four query heads share two heads of keys and values."""
    b = builder(17)
    x = b.input("x", [1, 6, 8])
    q = b.transpose(b.reshape(b.linear(x, 8, 16), 1, 6, 4, 4), 0, 2, 1, 3)

    def shared(t: str) -> str:
        t = b.transpose(b.reshape(t, 1, 6, 2, 1, 4), 0, 2, 3, 1, 4)
        wide = b.op("Expand", t, b.constant(np.array([1, 2, 2, 6, 4])))
        return b.reshape(wide, 1, 4, 6, 4)

    k, v = shared(b.linear(x, 8, 8)), shared(b.linear(x, 8, 8))
    scores = b.op("Softmax", b.op("MatMul", q, b.transpose(k, 0, 1, 3, 2)))
    y = b.reshape(b.transpose(b.op("MatMul", scores, v), 0, 2, 1, 3), 1, 6, 16)
    path = saved(b, {b.linear(y, 16, 8): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    check_views(graph)
    assert count(graph)[Gemm] == 4 + 8


def test_equal_tokens(builder: Build, tmp_path: Path) -> None:
    """A class token and a distillation token that are the same constant."""
    b, x = started(builder)
    token = b.normal(1, 1, 8)
    x = b.op("Add", b.op("Concat", token, token, x, axis=1), b.normal(1, 8, 8))
    path = saved(b, {x: [1, 8, 8]}, tmp_path)
    compare(path, lower(import_model(path)), tokens())


def test_learned_queries(builder: Build, tmp_path: Path) -> None:
    b, k = started(builder)
    scores = b.op("MatMul", b.normal(1, 3, 8), b.transpose(k, 0, 2, 1))
    path = saved(b, {b.op("MatMul", b.op("Softmax", scores), k): [1, 3, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())


def test_two_heads_averaged(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    both = b.op("Add", b.linear(x, 8, 4), b.linear(x, 8, 4))
    path = saved(b, {b.op("Div", both, b.constant(2.0)): [1, 6, 4]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert [op.operator for op in graph.host.operations] == ["Div"]


def test_transposed_output(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    path = saved(b, {b.transpose(x, 0, 2, 1): [1, 8, 6]}, tmp_path)
    compare(path, lower(import_model(path)), tokens())


def test_output_of_many_matrices(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    heads = b.transpose(b.reshape(x, 1, 6, 2, 4), 0, 2, 1, 3)
    scores = b.op("Softmax", b.op("MatMul", heads, b.transpose(heads, 0, 1, 3, 2)))
    mixed = b.op("MatMul", scores, heads)
    path = saved(b, {mixed: [1, 2, 6, 4]}, tmp_path)
    compare(path, lower(import_model(path)), tokens())
    last = b.transpose(mixed, 0, 2, 3, 1)
    path = saved(b, {last: [1, 6, 4, 2]}, tmp_path)
    with pytest.raises(ModelError, match="output cannot be handed"):
        lower(import_model(path))


def test_attention_maps_are_no_output(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    scores = b.op("Softmax", b.op("MatMul", x, b.transpose(x, 0, 2, 1)))
    y = b.op("MatMul", scores, x)
    path = saved(b, {y: [1, 6, 8], scores: [1, 6, 6]}, tmp_path)
    with pytest.raises(ModelError, match=r"operator 'Softmax'"):
        lower(import_model(path))


def test_partial_scaling(builder: Build, tmp_path: Path) -> None:
    """A scale on some columns of a product splits it; no column is computed twice."""
    b = builder(17)
    wide = b.linear(b.input("x", [1, 6, 8]), 8, 24)
    q, k, v = b.ops("Split", 3, wide, b.constant(np.array([8, 8, 8])), axis=2)
    q = b.op("Mul", q, b.constant(0.3))
    scores = b.op("Softmax", b.op("MatMul", q, b.transpose(k, 0, 2, 1)))
    path = saved(b, {b.op("MatMul", scores, v): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert graph.macs == 3 * 6 * 8 * 8 + 2 * 6 * 6 * 8


def test_no_product(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    path = saved(b, {b.op("Relu", b.input("x", [1, 6, 8])): [1, 6, 8]}, tmp_path)
    with pytest.raises(ModelError, match="product"):
        lower(import_model(path))


def masked(builder: Build, form: str) -> tuple[Any, str]:
    """Attention over six tokens with a mask from the host, and its output."""
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    mask = b.input("mask", [1, 6], onnx.TensorProto.INT64)
    row = b.op("Unsqueeze", mask, b.constant(np.array([1])))
    if form.startswith("add"):
        hidden = b.op("Sub", b.constant(1.0), b.op("Cast", row, to=onnx.TensorProto.FLOAT))
        bias = b.op("Mul", hidden, b.constant(-10000.0))
        operands = (bias, scores) if form == "add first" else (scores, bias)
        scores = b.op("Add", *operands)
        if form == "add twice":
            scores = b.op("Add", b.constant(np.zeros((1, 6, 6))), b.op("Add", bias, scores))
    elif form == "sub":
        hidden = b.op("Sub", b.constant(1.0), b.op("Cast", row, to=onnx.TensorProto.FLOAT))
        scores = b.op("Sub", scores, b.op("Mul", hidden, b.constant(10000.0)))
    else:
        counts = b.op("Cast", row, to=onnx.TensorProto.BOOL)
        low = b.constant(-1e9)
        if form == "where":
            scores = b.op("Where", counts, scores, low)
        else:
            scores = b.op("Where", b.op("Not", counts), low, scores)
    return b, b.op("MatMul", b.op("Softmax", scores, axis=-1), x)


@pytest.mark.parametrize("form", ["add", "add first", "add twice", "sub", "where", "where not"])
def test_masks(form: str, builder: Build, tmp_path: Path) -> None:
    """The host hands a mask over; the softmax reads scores as they are, cut to a length."""
    b, y = masked(builder, form)
    path = saved(b, {y: [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    (name,) = graph.masks
    inputs = {**tokens(), "mask": np.ones((1, 6), np.int64)}
    compare(path, graph, inputs)
    inputs["mask"][0, 4:] = 0
    before = HostRunner(graph.host.before).run(inputs)
    counts = before[name] if before[name].dtype == bool else before[name] == 0
    assert counts.shape == (1, 1, 6)
    assert counts.ravel().tolist() == [True] * 4 + [False] * 2
    softmax = next(op for op in graph.operations if isinstance(op, Softmax))
    scores = replace(graph.tensors[softmax.source.tensor], col_tokens=True)
    cut = replace(graph, tensors={**graph.tensors, scores.name: scores})
    tensors = run_float(cut, before, length=4)
    outputs = {n: tensors[n] for n, t in graph.tensors.items() if t.role == Role.OUTPUT}
    (got,) = HostRunner(graph.host.after).run(outputs).values()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    assert np.abs(got - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("bias", "reason"),
    [
        (np.triu(np.full((6, 6), -np.inf), 1), "causal attention: not yet"),
        (np.where(np.eye(6) > 0, -1e5, 0), "hides tokens of every input: not yet"),
        (np.arange(6.0), "position biases on attention scores: not yet"),
        (np.zeros((6, 6)), None),
        (np.full((6, 1), 3.0), None),
    ],
)
@pytest.mark.parametrize("early", [False, True])
def test_constants_added_to_scores(
    bias: np.ndarray, reason: str | None, early: bool, builder: Build, tmp_path: Path
) -> None:
    """What is the same for every input is no mask of padding, even if the host computes it."""
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    added = b.constant(bias.astype(np.float32))
    inputs = tokens()
    if early and reason is not None:
        padding = b.op("Mul", b.input("padding", [1, 1, 6]), b.constant(-1e6))
        added = b.op("Add", added, padding)
        inputs["padding"] = np.zeros((1, 1, 6), np.float32)
    y = b.op("MatMul", b.op("Softmax", b.op("Add", scores, added)), x)
    path = saved(b, {y: [1, 6, 8]}, tmp_path)
    if reason is None:
        compare(path, lower(import_model(path)), inputs)
    else:
        with pytest.raises(ModelError, match=rf"^node .*'Add'\): .*{reason}"):
            lower(import_model(path))


def test_bias_in_front_of_the_last_softmax(builder: Build, tmp_path: Path) -> None:
    """A classifier's bias is no mask."""
    b, x = started(builder)
    path = saved(b, {b.op("Softmax", b.linear(x, 8, 4), axis=-1): [1, 6, 4]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert [op.operator for op in graph.host.operations] == ["Softmax"]


def test_not_a_number_replaced(builder: Build, tmp_path: Path) -> None:
    """Exporters guard the softmax of tokens that are all masked; none is."""
    b, x = started(builder)
    shares = b.op("Softmax", b.op("MatMul", x, b.transpose(x, 0, 2, 1)))
    shares = b.op("Where", b.op("IsNaN", shares), b.constant(0.0), shares)
    path = saved(b, {b.op("MatMul", shares, x): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert not graph.host.operations


def test_masked_mean(builder: Build, tmp_path: Path) -> None:
    """The host's end reads an input of the model, and what the host computed of it before."""
    b, y = masked(builder, "add")
    weights = b.op("Cast", b.op("Unsqueeze", "mask", b.constant(np.array([2]))), to=1)
    axis = b.constant(np.array([1]))
    total = b.op("ReduceSum", b.op("Mul", y, weights), axis)
    path = saved(b, {b.op("Div", total, b.op("ReduceSum", weights, axis)): [1, 1, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, {**tokens(), "mask": np.ones((1, 6), np.int64)})
    assert graph.host.after.graph.input[0].name == "mask"


def test_head_at_the_end(builder: Build, tmp_path: Path) -> None:
    """Behind a pooling that no engine can do, the host runs the head too: it has one row."""
    b, x = started(builder)
    pooled = b.op("ReduceMax", x, axes=[1], keepdims=0)
    norm = b.op("LayerNormalization", pooled, b.normal(8), b.normal(8))
    y = b.op("Gemm", b.op("Tanh", norm), b.normal(8, 3), b.normal(3))
    path = saved(b, {y: [1, 3]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    operators = [op.operator for op in graph.host.operations]
    assert operators == ["ReduceMax", "LayerNormalization", "Tanh", "Gemm"]


def test_norm_of_the_mean_over_tokens(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    norm = b.op("LayerNormalization", b.reduce_mean(x, 1, 0), b.normal(8), b.normal(8))
    path = saved(b, {b.linear(norm, 8, 3): [1, 3]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert [op.operator for op in graph.host.operations][:2] == ["ReduceMean", "LayerNormalization"]


NOT_YET = {
    "RMSNorm": ("ReduceMean", "RMSNorm: not yet"),
    "rotary positions": ("Mul", "rotary positions: not yet"),
    "gate": ("Mul", "gates and rotary positions: not yet"),
    "convolution": ("Conv", "it has padding; other convolutions: not yet"),
    "windows": ("MatMul", "window attention and other regrouping of tokens: not yet"),
    "shifted windows": ("MatMul", "window attention and other regrouping of tokens: not yet"),
    "causal": ("Where", "causal attention: not yet"),
    "position bias": ("Add", "position biases on attention scores: not yet"),
}


@pytest.mark.parametrize("what", NOT_YET)
def test_not_yet(what: str, builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    match what:
        case "RMSNorm":
            square = b.op("Pow", x, b.constant(2.0))
            root = b.op("Sqrt", b.op("Add", b.reduce_mean(square, -1), b.constant(1e-6)))
            y = b.op("Mul", b.op("Mul", x, b.op("Reciprocal", root)), b.normal(8))
        case "rotary positions":
            first, second = b.ops("Split", 2, x, b.constant(np.array([4, 4])), axis=2)
            turned = b.op("Concat", b.op("Neg", second), first, axis=2)
            y = b.op("Mul", x, b.normal(6, 8))
            y = b.op("Add", y, b.op("Mul", turned, b.normal(6, 8)))
        case "gate":
            y = b.op("Mul", b.linear(x, 8, 8), b.op("Sigmoid", b.linear(x, 8, 8)))
        case "convolution":
            image = b.reshape(b.transpose(x, 0, 2, 1), 1, 8, 2, 3)
            y = b.op("Conv", image, b.normal(8, 8, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
            y = b.transpose(b.reshape(y, 1, 8, 6), 0, 2, 1)
        case "windows" | "shifted windows":
            if what == "shifted windows":
                starts = (b.constant(np.array([n])) for n in (1, 6, 1))
                rest = (b.constant(np.array([n])) for n in (0, 1, 1))
                x = b.op("Concat", b.op("Slice", x, *starts), b.op("Slice", x, *rest), axis=1)
            window = b.transpose(b.reshape(x, 2, 3, 8), 1, 0, 2)
            scores = b.op("MatMul", window, b.transpose(window, 0, 2, 1))
            y = b.reshape(b.op("MatMul", b.op("Softmax", scores), window), 1, 6, 8)
        case "causal":
            counts = b.constant(np.tril(np.ones((6, 6), bool)))
            scores = b.op("Where", counts, scores, b.constant(-1e9))
            y = b.op("MatMul", b.op("Softmax", scores), x)
        case _:
            scores = b.op("Add", scores, b.normal(1, 6, 6))
            y = b.op("MatMul", b.op("Softmax", scores), x)
    path = saved(b, {b.linear(y, 8, 4): [1, 6, 4]}, tmp_path)
    operator, reason = NOT_YET[what]
    with pytest.raises(ModelError, match=rf"^node '.*' \(operator '{operator}'\): .*{reason}"):
        lower(import_model(path))


@pytest.mark.parametrize("before", [0.0, 0.5])
@pytest.mark.parametrize("behind", [0.5, -3.0])
def test_constants_beside_a_mask(
    before: float, behind: float, builder: Build, tmp_path: Path
) -> None:
    """What is added to whole rows changes no softmax; a length cuts the scores all the same."""
    b, x = started(builder)
    scores = b.op("Mul", b.op("MatMul", x, b.transpose(x, 0, 2, 1)), b.constant(2.0))
    scores = b.op("Add", scores, b.constant(before))
    bias = b.op("Mul", b.input("padding", [1, 1, 6]), b.constant(-1e6))
    scores = b.op("Add", b.op("Add", scores, bias), b.constant(behind))
    path = saved(b, {b.op("MatMul", b.op("Softmax", scores), x): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    inputs = {**tokens(), "padding": np.zeros((1, 1, 6), np.float32)}
    compare(path, graph, inputs)
    inputs["padding"][..., 4:] = 1
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    tensors = run_float(graph, HostRunner(graph.host.before).run(inputs), length=4)
    outputs = {n: tensors[n] for n, t in graph.tensors.items() if t.role == Role.OUTPUT}
    (got,) = HostRunner(graph.host.after).run(outputs).values()
    assert np.abs(got - expected)[:, :4].max() < 1e-4


def test_scale_behind_a_mask(builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    bias = b.op("Mul", b.input("padding", [1, 1, 6]), b.constant(-1e6))
    scores = b.op("Add", b.op("MatMul", x, b.transpose(x, 0, 2, 1)), bias)
    shares = b.op("Softmax", b.op("Mul", scores, b.constant(0.5)))
    path = saved(b, {b.op("MatMul", shares, x): [1, 6, 8]}, tmp_path)
    with pytest.raises(ModelError, match=r"^node 'node_\d+' \(operator 'Add'\)"):
        lower(import_model(path))


@pytest.mark.parametrize("form", ["queries", "one value", "transposed"])
def test_masks_of_queries(form: str, builder: Build, tmp_path: Path) -> None:
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    shape = {"queries": [1, 6, 1], "one value": [], "transposed": [1, 1, 6]}[form]
    bias = b.op("Mul", b.input("padding", shape), b.constant(-1e6))
    if form == "transposed":
        hidden = b.op("Add", b.transpose(scores, 0, 2, 1), bias)
        scores = b.transpose(hidden, 0, 2, 1)
        reason = r"'Softmax'\): its mask does not run over its last axis: not yet"
    else:
        scores = b.op("Add", scores, bias)
        reason = r"'Add'\): a mask that is the same for all keys of a query: not yet"
    path = saved(b, {b.op("MatMul", b.op("Softmax", scores), x): [1, 6, 8]}, tmp_path)
    with pytest.raises(ModelError, match=reason):
        lower(import_model(path))


@pytest.mark.parametrize("what", ["some heads", "one layer", "the same scores"])
def test_mask_on_some_attentions(what: str, builder: Build, tmp_path: Path) -> None:
    """A runtime length would hide tokens where the model does not."""
    b, x = started(builder)
    bias = b.op("Mul", b.input("padding", [1, 1, 6]), b.constant(-1e6))
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    hidden = b.op("Add", scores, bias)
    match what:
        case "some heads":
            shares = b.op("Softmax", b.op("Concat", hidden, scores, axis=0))
            outputs = {b.op("MatMul", shares, x): [2, 6, 8]}
            reason = r"^node .*'Softmax'\): only some of its scores have an attention mask"
        case _:
            y = b.op("MatMul", b.op("Softmax", hidden), x)
            if what == "one layer":
                x = b.linear(y, 8, 8)
                scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
            outputs = {y: [1, 6, 8], b.op("MatMul", b.op("Softmax", scores), x): [1, 6, 8]}
            reason = "^the softmax 'node_.*' has no attention mask while others have: not yet"
    path = saved(b, outputs, tmp_path)
    with pytest.raises(ModelError, match=reason):
        lower(import_model(path))


def test_mask_that_hides_some_of_uniform_inputs(builder: Build, tmp_path: Path) -> None:
    """At most three tokens count, although nothing is padding."""
    b, x = started(builder)
    mask = b.input("mask", [1, 1, 6], onnx.TensorProto.INT64)
    total = b.op("CumSum", mask, b.constant(np.array(2)))
    hidden = b.op("Greater", total, b.constant(np.array(3)))
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    shares = b.op("Softmax", b.op("Where", hidden, b.constant(-1e9), scores))
    path = saved(b, {b.op("MatMul", shares, x): [1, 6, 8]}, tmp_path)
    with pytest.raises(ModelError, match=r"'Where'\): a mask that hides tokens of every input"):
        lower(import_model(path))


END = "mixes tokens that the mask hides"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("mean", "sums over all tokens|" + END),
        ("max", END),
        ("min", END),
        ("min of some columns", END),
        ("sum above a threshold", END),
        ("masked sum", None),
        ("first", None),
        ("scaled", None),
    ],
)
def test_ends_with_hidden_tokens(
    end: str, reason: str | None, builder: Build, tmp_path: Path
) -> None:
    """A model with masks whose end reads what has no meaning is refused."""
    b, y = masked(builder, "add")
    shape = [1, 8]
    match end:
        case "mean":
            y = b.reduce_mean(y, 1, 0)
        case "max":
            y = b.op("ReduceMax", y, axes=[1], keepdims=0)
        case "min":
            y = b.op("ReduceMin", y, axes=[1], keepdims=0)
        case "min of some columns":
            y = b.op("Gather", y, b.constant(np.array([0, 1])), axis=2)
            y, shape = b.op("ReduceMin", y, axes=[1], keepdims=0), [1, 2]
        case "sum above a threshold":
            y = b.op("Relu", b.op("Sub", b.op("Abs", y), b.constant(3.0)))
            y = b.op("ReduceSum", y, b.constant(np.array([1])), keepdims=0)
        case "masked sum":
            weights = b.op("Cast", b.op("Unsqueeze", "mask", b.constant(np.array([2]))), to=1)
            y = b.op("ReduceSum", b.op("Mul", y, weights), b.constant(np.array([1])), keepdims=0)
        case "first":
            y = b.op("Sin", b.op("Gather", y, b.constant(np.array(0)), axis=1))
        case _:
            y, shape = b.op("Sin", y), [1, 6, 8]
    path = saved(b, {y: shape}, tmp_path)
    if reason is None:
        assert lower(import_model(path)).tokens == 6
    else:
        with pytest.raises(ModelError, match=reason):
            lower(import_model(path))


def test_mean_over_tokens_without_masks(builder: Build, tmp_path: Path) -> None:
    """No runtime length: the host's mean is over all tokens."""
    b, x = started(builder)
    y = b.op("MatMul", b.op("Softmax", b.op("MatMul", x, b.transpose(x, 0, 2, 1))), x)
    path = saved(b, {b.reduce_mean(y, 1, 0): [1, 8], y: [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert graph.tokens is None


def test_mask_that_is_an_input(builder: Build, tmp_path: Path) -> None:
    """Added as it stands: 0 counts, so a mask of ones is none."""
    b, x = started(builder)
    scores = b.op("MatMul", x, b.transpose(x, 0, 2, 1))
    scores = b.op("Add", scores, b.input("mask", [1, 1, 6]))
    path = saved(b, {b.op("MatMul", b.op("Softmax", scores), x): [1, 6, 8]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, {**tokens(), "mask": np.zeros((1, 1, 6), np.float32)})
    assert len(graph.masks) == 1


@pytest.mark.parametrize("order", ["weights last", "weights first"])
def test_einsum(order: str, builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    x = b.input("x", [1, 6, 8])
    heads = b.op("Einsum", x, b.normal(2, 8, 4, scale=0.3), equation="b i d, h d e -> b h i e")
    scores = b.op("Einsum", heads, heads, equation="bhid,bhjd->bhij")
    mixed = b.op("Einsum", b.op("Softmax", scores), heads, equation="bhij,bhjd->bihd")
    joined = b.reshape(mixed, 1, 6, 8)
    weight = b.normal(8, 5)
    if order == "weights last":
        y = b.op("Einsum", joined, weight, equation="bid,de->bie")
    else:
        y = b.op("Einsum", weight, joined, equation="de,bid->bie")
    path = saved(b, {y: [1, 6, 5]}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    check_views(graph)
    assert count(graph)[Gemm] == 2 + 2 + 2 + 1
    assert not graph.host.operations


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("bij,bij->bij", [1, 6, 6]),
        ("bij,bkj->bi", [1, 6]),
        ("bii,bij->bj", [1, 6]),
        ("...ij,...jk->...ik", [1, 6, 6]),
    ],
)
def test_einsums_that_are_no_product(
    equation: str, shape: list[int], builder: Build, tmp_path: Path
) -> None:
    b = builder(17)
    x = b.linear(b.input("x", [1, 6, 8]), 8, 6)
    path = saved(b, {b.op("Einsum", x, x, equation=equation): shape}, tmp_path)
    graph = lower(import_model(path))
    compare(path, graph, tokens())
    assert [op.reason[:11] for op in graph.host.operations] == ["only einsum"]
