"""The float Graph computes what onnxruntime computes, however the model is written."""

from collections.abc import Callable
from pathlib import Path

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
    return list(HostRunner(graph.host.after).run(outputs).values())


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
    {"activation": "Relu"},
    {"activation": "silu"},
    {"activation": "quick"},
    {"activation": "Tanh"},
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
