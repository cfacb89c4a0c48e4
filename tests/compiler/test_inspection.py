"""Inspection: every node has a place, and every node that no engine can do is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gateformer.compiler.importer import import_model
from gateformer.compiler.inspection import Inspection, NodeReport, inspect
from gateformer.compiler.inspection_limits import limits
from gateformer.compiler.lowering import lower
from gateformer.examples.digits.demo import MODEL
from gateformer.examples.families.families import FAMILIES, Family
from gateformer.spec.configs import find_config

DIM, TOKENS, HEADS = 16, 6, 2


def report(inspection: Inspection, name: str) -> NodeReport:
    return next(r for r in inspection.nodes if r.node == name)


def places(inspection: Inspection) -> dict[str, str]:
    return {r.node: r.place for r in inspection.nodes}


def test_digits() -> None:
    inspection = inspect(import_model(MODEL))
    assert inspection.supported and inspection.graph is not None
    file = onnx.load(MODEL)
    assert sorted(places(inspection)) == sorted(node.name for node in file.graph.node)
    block = "/blocks/blocks.0"
    found = places(inspection)
    assert found["/patch_embedding/Conv"] == "ARRAY"
    assert found["/Reshape"] == "moves data"
    assert found[f"{block}/attention/Softmax"] == "VECTOR"
    assert found[f"{block}/attention_norm/LayerNormalization"] == "VECTOR"
    for part in ("Div", "Erf", "Add", "Mul", "Mul_1"):
        gelu = report(inspection, f"{block}/mlp/mlp.1/{part}")
        assert (gelu.place, gelu.reason) == ("EPILOGUE", f"of {block}/mlp/mlp.0/MatMul")
    residual = report(inspection, f"{block}/Add")
    assert residual.reason == f"of {block}/attention/out/MatMul"
    up = report(inspection, f"{block}/mlp/mlp.0/MatMul")
    tokens, dim, hidden = 17, 48, 96
    assert up.macs == tokens * dim * hidden
    assert up.weight_bytes == hidden * (dim + 8)
    assert up.activation_bytes == tokens * hidden
    assert inspection.totals.macs == inspection.graph.macs


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_families(family: Family) -> None:
    model = import_model(family.path, dict(family.shapes))
    inspection = inspect(model)
    assert inspection.supported and inspection.graph is not None
    assert not inspection.count("open") and not inspection.count("none")
    assert inspection.totals.macs == inspection.graph.macs
    hosted = {operation.node for operation in inspection.graph.host.operations}
    on_host = {r.node for r in inspection.nodes if r.place.startswith("host")}
    assert on_host <= hosted
    assert all(report(inspection, name).place == "ARRAY" for name in hosted - on_host)


def _decoder(b: Any) -> onnx.ModelProto:
    """Two causal blocks without norms at the end."""
    x = b.input("x", [TOKENS, DIM])
    mask = b.constant(np.where(np.tri(TOKENS) > 0, 0, -1e9).astype(np.float32))
    shape = [TOKENS, HEADS, DIM // HEADS]
    for _ in range(2):
        gain, bias = b.constant(np.ones(DIM)), b.constant(np.zeros(DIM))
        y = b.op("LayerNormalization", x, gain, bias, axis=-1)
        q, k, v = (b.reshape(b.linear(y, DIM, DIM), *shape) for _ in range(3))
        scores = b.op("MatMul", b.transpose(q, 1, 0, 2), b.transpose(k, 1, 2, 0))
        share = b.op("Softmax", b.op("Add", scores, mask), axis=-1)
        mixed = b.transpose(b.op("MatMul", share, b.transpose(v, 1, 0, 2)), 1, 0, 2)
        x = b.op("Add", x, b.linear(b.reshape(mixed, TOKENS, DIM), DIM, DIM))
    return b.model({b.op("MatMul", x, b.normal(DIM, 5)): [TOKENS, 5]})


def test_a_causal_decoder(builder: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_decoder(builder(17)), path)
    inspection = inspect(import_model(path))
    assert not inspection.supported
    kinds = {r.node: r.operator for r in inspection.nodes}
    assert [kinds[name] for name in inspection.refusals] == ["Add", "Add", "Add"]
    reasons = list(inspection.refusals.values())
    assert sum("causal" in reason and "not yet" in reason for reason in reasons) == 2
    assert sum("no norm" in reason for reason in reasons) == 1
    by_operator: dict[str, set[str]] = {}
    for r in inspection.nodes:
        by_operator.setdefault(r.operator, set()).add(r.place)
    assert by_operator["MatMul"] == {"ARRAY"}
    assert by_operator["LayerNormalization"] == {"VECTOR"}
    assert by_operator["Softmax"] == {"open"}
    assert by_operator["Add"] == {"EPILOGUE", "none"}


def test_an_operator_between_products(builder: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing is known of what comes before a refused node only from what comes behind it."""
    b = builder(17)
    x = b.linear(b.input("x", [TOKENS, DIM]), DIM, DIM)
    x = b.linear(b.op("Sin", x), DIM, DIM)
    x = b.linear(b.op("CumSum", x, b.constant(np.array(0))), DIM, DIM)
    path = tmp_path / "model.onnx"
    onnx.save(b.model({x: [TOKENS, DIM]}), path)
    inspection = inspect(import_model(path))
    kinds = {r.node: r.operator for r in inspection.nodes}
    assert sorted(kinds[name] for name in inspection.refusals) == ["CumSum", "Sin"]
    assert inspection.count("ARRAY") == inspection.count("EPILOGUE") == 3
    assert inspection.totals.macs == 3 * TOKENS * DIM * DIM


def test_a_convolutional_network(builder: Callable[..., Any], tmp_path: Path) -> None:
    b = builder(17)
    x = b.input("x", [1, 3, 8, 8])
    x = b.op("Relu", b.op("Conv", x, b.normal(4, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    path = tmp_path / "model.onnx"
    onnx.save(b.model({b.op("Gemm", x, b.normal(4, 5)): [1, 5]}), path)
    inspection = inspect(import_model(path))
    conv = next(r for r in inspection.nodes if r.operator == "Conv")
    assert conv.place == "host before" and "not yet" in conv.reason
    assert next(r for r in inspection.nodes if r.operator == "Gemm").place == "ARRAY"


def test_no_product(builder: Callable[..., Any], tmp_path: Path) -> None:
    b = builder(17)
    path = tmp_path / "model.onnx"
    onnx.save(b.model({b.op("Relu", b.input("x", [4, 8])): [4, 8]}), path)
    inspection = inspect(import_model(path))
    assert not inspection.supported and list(inspection.refusals) == [""]


def test_limits() -> None:
    graph = lower(import_model(MODEL))
    found = {limit.resource: limit for limit in limits(graph, find_config("ecp5-85k"))}
    assert all(limit.fits and not limit.note for limit in found.values())
    assert found["softmax_length"].needs == 17 and found["norm_length"].needs == 48
    assert found["k_max"].needs == 96
    long = next(family for family in FAMILIES if family.tokens == max(f.tokens for f in FAMILIES))
    graph = lower(import_model(long.path, dict(long.shapes)))
    tiny = find_config("tiny")
    short = {limit.resource: limit for limit in limits(graph, tiny)}["softmax_length"]
    assert short.needs == long.tokens and short.fits == (long.tokens <= tiny.softmax_length)
    assert bool(short.note) != short.fits
