"""The golden model of integer graphs: by hand on small graphs, by accuracy on the digits."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.graph import Role, View
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import quantize
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QSoftmax,
    QTensor,
    QuantizedGraph,
    Records,
)
from gateformer.compiler.scales import exp_table
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY
from gateformer.spec.errors import DataError

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def tensor(
    name: str, rows: int, cols: int, kind: str, codes: np.ndarray | None = None, **more: object
) -> QTensor:
    role = Role.VALUE if codes is None else Role.CONSTANT
    return QTensor(name, rows, cols, role, cols, kind, codes=codes, **more)  # type: ignore[arg-type]


def graph_of(tensors: list[QTensor], *operations: object) -> QuantizedGraph:
    return QuantizedGraph({t.name: t for t in tensors}, operations)  # type: ignore[arg-type]


def all_of(t: QTensor) -> View:
    return View(t.name, 0, t.rows, 0, t.cols)


@pytest.fixture(name="random")
def _random() -> np.random.Generator:
    return np.random.default_rng(11)


def int8(random: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    return random.integers(-128, 128, (rows, cols)).astype(np.int8)


def records(random: np.random.Generator, count: int) -> Records:
    return Records(
        random.integers(-(2**20), 2**20, count).astype(np.int32),
        random.integers(1, 65536, count).astype(np.int32),
        random.integers(0, 4, count).astype(np.int32),
    )


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("kind", ["int8", "int16", "int32"])
def test_gemm(kind: str, by_row: bool, random: np.random.Generator) -> None:
    a = tensor("a", 5, 7, "int8", int8(random, 5, 7))
    b = tensor("b", 6, 7, "int8", int8(random, 6, 7))
    out = tensor("out", 5, 6, kind)
    r = records(random, 5 if by_row else 6)
    op = QGemm("g", all_of(a), all_of(b), all_of(out), r, by_row)
    result = run_quantized(graph_of([a, b, out], op), {}, ECP5_85K)["out"]
    assert a.codes is not None and b.codes is not None
    for i in range(5):
        for j in range(6):
            n = i if by_row else j
            total = sum(int(x) * int(y) for x, y in zip(a.codes[i], b.codes[j], strict=True))
            total += int(r.bias[n])
            shift = arithmetic.SCALE_SHIFTS[r.selector[n]]
            scaled = (total * int(r.multiplier[n]) + (1 << (shift - 1))) >> shift
            bits = 8 if kind == "int8" else 16
            limited = max(min(scaled, (1 << (bits - 1)) - 1), -(1 << (bits - 1)))
            assert result[i, j] == (total if kind == "int32" else limited)


def test_gemm_saturates_before_and_after_the_residual(random: np.random.Generator) -> None:
    config = ECP5_85K.replace(residual_bits=12)
    a = tensor("a", 1, 1, "int8", np.array([[127]], np.int8))
    b = tensor("b", 3, 1, "int8", np.array([[127], [-127], [10]], np.int8))
    residual = tensor("r", 1, 3, "int16", np.array([[-2000, -2000, 2000]], np.int16))
    out = tensor("out", 1, 3, "int16")
    one = np.ones(3, np.int32)
    op = QGemm(
        "g",
        all_of(a),
        all_of(b),
        all_of(out),
        Records(0 * one, 65535 * one, 0 * one),
        residual=all_of(residual),
    )
    result = run_quantized(graph_of([a, b, residual, out], op), {}, config)["out"]
    assert result.tolist() == [[47, -2048, 2047]]


def test_gemm_with_table(random: np.random.Generator) -> None:
    a = tensor("a", 2, 2, "int8", np.array([[127, 127], [-127, -127]], np.int8))
    b = tensor("b", 2, 2, "int8", np.array([[127, 127], [1, 0]], np.int8))
    out = tensor("out", 2, 2, "int8")
    table = int8(random, 1, 1024)[0]
    one = np.ones(2, np.int32)
    r = Records(0 * one, 65535 * one, 0 * one)
    op = QGemm("g", all_of(a), all_of(b), all_of(out), r, activation=table)
    result = run_quantized(graph_of([a, b, out], op), {}, ECP5_85K)["out"]
    assert result.tolist() == [[table[511], table[127]], [table[512], table[1024 - 127]]]


def test_softmax_and_its_product(random: np.random.Generator) -> None:
    """Within a step of exact softmax times V; rows count only their bound."""
    scores = int8(random, 6, 9)
    source = tensor("s", 6, 9, "int8", scores)
    target, rows = tensor("p", 6, 9, "int8"), tensor("p/records", 6, 1, "record")
    values = tensor("v", 4, 9, "int8", int8(random, 4, 9))
    out = tensor("out", 6, 4, "int8")
    softmax = QSoftmax(
        "softmax", all_of(source), all_of(target), "p/records", exp_table(0.05), 1 << 28, 4, True
    )
    gemm = QGemm("g", all_of(target), all_of(values), all_of(out), "p/records", True)
    result = run_quantized(graph_of([source, target, rows, values, out], softmax, gemm), {}, TINY)
    bounds = np.minimum(4 + np.arange(6), 9)
    counted = np.arange(9) < bounds[:, None]
    weights = np.where(counted, np.exp(0.05 * scores.astype(float)), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    assert values.codes is not None
    assert np.abs(result["out"] - weights @ values.codes.T).max() < 1.5
    assert (result["p"].max(axis=1) == 127).all() and not result["p"][~counted].any()
    assert result["p/records"].shape == (6, 2)


def test_norm_writes_both(random: np.random.Generator) -> None:
    codes = random.integers(-3000, 3000, (4, 16)).astype(np.int16)
    source = tensor("x", 4, 16, "int16", codes)
    narrow, wide = tensor("y", 4, 16, "int8"), tensor("z", 4, 16, "int16")
    gains = np.full(16, 1 << 11, np.int16)
    biases = np.zeros(16, np.int32)
    op = QNorm(
        "n",
        all_of(source),
        0,
        Gain(all_of(narrow), gains, biases, 16),
        Gain(all_of(wide), gains, biases, 12),
    )
    result = run_quantized(graph_of([source, narrow, wide], op), {}, ECP5_85K)
    x = codes.astype(float)
    exact = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    assert np.abs(result["y"] - 32 * exact).max() < 1
    assert np.abs(result["z"] - 512 * exact).max() < 2


def test_copy_and_views(random: np.random.Generator) -> None:
    source = tensor("c", 1, 4, "int16", np.array([[1, -2, 3, -4]], np.int16))
    target = tensor("t", 3, 4, "int16")
    op = QCopy("copy", all_of(source), View("t", 1, 1, 0, 4))
    result = run_quantized(graph_of([source, target], op), {}, ECP5_85K)["t"]
    assert result.tolist() == [[0] * 4, [1, -2, 3, -4], [0] * 4]


def test_inputs_are_checked() -> None:
    x = replace(tensor("x", 2, 3, "int8"), role=Role.INPUT)
    graph = graph_of([x])
    good = np.zeros((2, 3), np.int16)
    assert run_quantized(graph, {"x": good}, ECP5_85K)["x"].dtype == np.int8
    for bad in ({}, {"x": good, "y": good}, {"x": good.T}, {"x": good + 0.5}, {"x": good + 128}):
        with pytest.raises(DataError):
            run_quantized(graph, bad, ECP5_85K)


@pytest.mark.parametrize(
    "config", [ECP5_85K, TINY, ECP5_85K.replace(gelu="polynomial")], ids=lambda c: c.gelu + c.name
)
def test_digits(config: AcceleratorConfig) -> None:
    """Every fifth test image: the class is float's, and every array is of integers."""
    errors = []
    graph = lower(import_model(DIGITS / "digits.onnx"))
    with np.load(DIGITS / "calibration.npz") as samples:
        quantized = quantize(graph, config, dict(samples))
    with np.load(DIGITS / "expected.npz") as file:
        expected = file["logits"]
    before, after = HostRunner(graph.host.before), HostRunner(graph.host.after)
    for image, logits in zip(split_images()[::5], expected[::5], strict=True):
        inputs = {
            name: quantize_input(quantized.tensors[name], values)
            for name, values in before.run({"image": image[None]}).items()
        }
        result = run_quantized(quantized, inputs, config)
        assert all(array.dtype.kind == "i" for array in result.values())
        outputs = {
            t.name: dequantize(t, result[t.name])
            for t in quantized.tensors.values()
            if t.role == Role.OUTPUT
        }
        (got,) = after.run(outputs)["logits"]
        assert got.argmax() == logits.argmax()
        errors.append(np.abs(got - logits).max() / np.abs(logits).max())
    assert np.median(errors) < 0.02 and max(errors) < 0.15


def split_images() -> np.ndarray:
    """The example's own split."""
    spec = importlib.util.spec_from_file_location("digits_data", DIGITS / "data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_split().test_images
