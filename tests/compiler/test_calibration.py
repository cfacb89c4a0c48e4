"""Ranges over samples, scales from ranges, and samples that do not fit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gateformer.compiler.activations import ACTIVATIONS, erf, recognize
from gateformer.compiler.calibration import Statistics, calibrate
from gateformer.compiler.float_execution import run_float
from gateformer.compiler.graph import Gemm, Graph, Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.scales import (
    activation_input_scale,
    activation_table,
    affine_scale,
    exp_table,
    symmetric_scale,
)
from gateformer.spec.errors import DataError

SHAPE = (1, 2, 6, 6)


@pytest.fixture(name="graph")
def _graph(transformer: Callable[..., Path]) -> Graph:
    return lower(import_model(transformer(layers=1)))


def samples(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    return {"image": random.normal(0, 1, (count, *SHAPE)).astype(np.float32)}


def test_limits_are_exact(graph: Graph) -> None:
    data = samples(5)
    calibration = calibrate(graph, data)
    host = HostRunner(graph.host.before)
    runs = [run_float(graph, host.run({"image": image})) for image in data["image"]]
    for name, tensor in graph.tensors.items():
        if tensor.role == Role.CONSTANT:
            assert name not in calibration.tensors
        else:
            values = np.stack([run[name] for run in runs])
            seen = calibration.tensors[name]
            assert (seen.low, seen.high) == (values.min(), values.max())
            assert seen.values.min() == seen.low and seen.values.max() == seen.high
    gemms = [op for op in graph.operations if isinstance(op, Gemm)]
    assert set(calibration.activations) == {op.name for op in gemms if op.activation}
    assert set(calibration.residuals) == {op.name for op in gemms if op.residual}


def test_channels(graph: Graph) -> None:
    """Limits by channel: columns, or rows where the weights are the left operand."""
    data = samples(3)
    calibration = calibrate(graph, data)
    host = HostRunner(graph.host.before)
    runs = [run_float(graph, host.run({"image": image})) for image in data["image"]]
    transposed = 0
    for name, seen in calibration.tensors.items():
        values = np.stack([run[name] for run in runs])
        if seen.axis is None:
            assert graph.tensors[name].col_tokens
            continue
        transposed += seen.axis == 0
        across = (0, 1) if seen.axis == 1 else (0, 2)
        assert np.array_equal(seen.lows, values.min(axis=across))
        assert np.array_equal(seen.highs, values.max(axis=across))
        for chunk, channel in zip(seen.chunks, seen.channels, strict=True):
            assert np.all((seen.lows[channel] <= chunk) & (chunk <= seen.highs[channel]))
    assert transposed == 1


def test_mapped() -> None:
    seen = Statistics()
    seen.add(np.array([[1.0, -4.0], [3.0, 8.0]]), 4, np.random.default_rng(0))
    mapped = seen.mapped(np.array([2.0, 4.0]), np.array([1.0, 0.0]))
    assert mapped.lows.tolist() == [0, -1] and mapped.highs.tolist() == [1, 2]
    assert sorted(np.concatenate(mapped.chunks).tolist()) == [-1, 0, 1, 2]


def test_only_counted_tokens(transformer: Callable[..., Path]) -> None:
    """What stands behind a sample's last token does not widen any range."""
    graph = lower(import_model(transformer(layers=1, head="tokens")))
    assert graph.tokens == 10
    before = graph.host.before
    mask = onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [graph.tokens])
    node = onnx.helper.make_node("Identity", ["mask"], ["counts"])
    masked = onnx.ModelProto()
    masked.CopyFrom(before)
    masked.graph.input.append(mask)
    masked.graph.node.append(node)
    masked.graph.output.append(
        onnx.helper.make_tensor_value_info("counts", onnx.TensorProto.FLOAT, [graph.tokens])
    )
    cut = replace(graph, host=replace(graph.host, before=masked), masks=("counts",))
    data = samples(3)
    lengths = np.array([10, 6, 4])
    additive = np.where(np.arange(10) < lengths[:, None], 0.0, -10000.0).astype(np.float32)
    calibration = calibrate(cut, {**data, "mask": additive})
    host = HostRunner(before)
    for name, seen in calibration.tensors.items():
        tensor = graph.tensors[name]
        low, high = np.inf, -np.inf
        for image, length in zip(data["image"], lengths.tolist(), strict=True):
            values = run_float(graph, host.run({"image": image}), length=length)[name]
            rows = tensor.rows if tensor.row_token is None else length - tensor.row_token
            counted = values[:rows, : length if tensor.col_tokens else None]
            low, high = min(low, counted.min()), max(high, counted.max())
        assert (seen.low, seen.high) == (low, high), name


def test_is_repeatable(graph: Graph) -> None:
    one, two = calibrate(graph, samples(3)), calibrate(graph, samples(3))
    for name, seen in one.tensors.items():
        assert np.array_equal(seen.values, two.tensors[name].values)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "missing"),
        ({"picture": np.zeros((2, *SHAPE))}, "picture"),
        ({"image": np.zeros((2, 2, 6, 6))}, "expected"),
        ({"image": np.zeros((2, 1, 2, 6, 5))}, "expected"),
        ({"image": np.zeros((0, *SHAPE))}, "at least one"),
        ({"image": np.full((2, *SHAPE), np.nan)}, "NaN"),
        ({"image": np.full((2, *SHAPE), np.inf)}, "NaN or infinity"),
        ({"image": np.full((2, *SHAPE), "a")}, "number"),
    ],
)
def test_samples_that_do_not_fit(arrays: dict[str, np.ndarray], says: str, graph: Graph) -> None:
    with pytest.raises(DataError, match=says) as caught:
        calibrate(graph, arrays)
    assert "\n" not in str(caught.value)


def test_samples_that_overflow(builder: Callable[..., Any], tmp_path: Path) -> None:
    b = builder(17)
    x = b.op("Mul", b.input("image", [1, 4, 8]), b.constant(1e30))
    onnx.save(b.model({b.linear(x, 8, 8): [1, 4, 8]}), tmp_path / "model.onnx")
    graph = lower(import_model(tmp_path / "model.onnx"))
    with pytest.raises(DataError, match="sample 0 gives NaN or infinity"):
        calibrate(graph, {"image": np.full((1, 1, 4, 8), 1e20, np.float32)})


def statistics(values: np.ndarray) -> Statistics:
    result = Statistics()
    result.add(values.reshape(1, -1), values.size, np.random.default_rng(0))
    return result


def test_estimators() -> None:
    values = np.random.default_rng(7).normal(0, 1, 20000)
    values[0] = 20.0
    seen = statistics(values)
    assert symmetric_scale(seen, 8, "minmax") == 20 / 127
    assert symmetric_scale(seen, 8, "percentile", 99.99) < 5 / 127
    assert symmetric_scale(seen, 8, "mse") < 19 / 127
    scale, zero = affine_scale(statistics(np.linspace(-0.17, 4, 100)), "minmax")
    assert zero == -118 and scale == pytest.approx(4.17 / 255)


@pytest.mark.parametrize("estimator", ["minmax", "percentile", "mse"])
def test_zero_has_a_code(estimator: str) -> None:
    for values in (np.linspace(2, 3, 50), np.linspace(-3, -2, 50), np.zeros(50)):
        scale, zero = affine_scale(statistics(values), estimator)  # type: ignore[arg-type]
        assert scale > 0 and -128 <= zero <= 127
        assert symmetric_scale(statistics(values), 8, estimator) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [8, 10])
def test_activation_table(bits: int) -> None:
    gelu = ACTIVATIONS["gelu"]
    seen = statistics(np.random.default_rng(8).normal(0, 2, 5000))
    scale, zero = affine_scale(statistics(gelu(seen.values)), "minmax")
    step = activation_input_scale(seen, gelu, scale, zero, bits)
    table = activation_table(gelu, step, scale, zero, bits)
    assert table.shape == (1 << bits,) and table.dtype == np.int8
    assert table[0] == zero
    for code in (1, 5, -1, -(1 << (bits - 1))):
        exact = float(gelu(np.array(code * step)))
        assert (
            abs(scale * (int(table[code & ((1 << bits) - 1)]) - zero) - exact) <= scale / 2 + 1e-9
        )


def test_exp_table() -> None:
    table = exp_table(0.1)
    assert table[0] == 127 and table[10] == round(127 * np.exp(-1)) and table[255] == 0


def test_erf() -> None:
    x = np.linspace(-7, 7, 4001)
    assert np.abs(erf(x) - [math.erf(value) for value in x]).max() < 1e-11


def test_recognizes_activations() -> None:
    for name, function in ACTIVATIONS.items():
        assert recognize(function) == name
    assert recognize(np.sin) is None
