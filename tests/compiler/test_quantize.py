"""The integer graph: exact where it can be, close to float where it cannot, always in range."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.float_execution import run_float
from gateformer.compiler.graph import Gemm, Graph, Role, Softmax
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import QuantizationOptions, quantize
from gateformer.compiler.quantized import QGemm, QNorm, QSoftmax, QTensor, QuantizedGraph, Records
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY
from gateformer.spec.errors import ConfigError, DataError, ModelError

SHAPE = (1, 2, 6, 6)
POLYNOMIAL = ECP5_85K.replace(gelu="polynomial")


def images(count: int, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE)).astype(np.float32)


def compiled(
    path: Path, config: AcceleratorConfig = ECP5_85K
) -> tuple[Graph, QuantizedGraph, AcceleratorConfig]:
    graph = lower(import_model(path))
    return graph, quantize(graph, config, {"image": images(16)}), config


def run_both(
    graph: Graph, quantized: QuantizedGraph, config: AcceleratorConfig, image: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All tensors in float and as codes."""
    inputs = HostRunner(graph.host.before).run({"image": image})
    codes = {name: quantize_input(quantized.tensors[name], x) for name, x in inputs.items()}
    return run_float(graph, inputs), run_quantized(quantized, codes, config)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


FORMS = [
    ({}, ECP5_85K),
    ({}, TINY),
    ({}, POLYNOMIAL),
    ({"activation": "Relu"}, ECP5_85K),
    ({"activation": "silu", "head": "mean"}, ECP5_85K),
    ({"qkv": "by head", "head": "tokens"}, TINY),
    ({"order": "post", "head": "tokens"}, ECP5_85K),
    ({"order": "parallel", "layer_scale": True}, ECP5_85K),
    ({"bias": False, "scale": "q mul"}, ECP5_85K),
]


@pytest.mark.parametrize(("form", "config"), FORMS, ids=str)
def test_close_to_float(
    form: dict[str, object], config: AcceleratorConfig, transformer: Callable[..., Path]
) -> None:
    graph, quantized, _ = compiled(transformer(**form), config)
    check_ranges(quantized, config)
    for image in images(4, seed=99):
        exact, codes = run_both(graph, quantized, config, image)
        for tensor in quantized.tensors.values():
            if tensor.role == Role.OUTPUT:
                values = dequantize(tensor, codes[tensor.name])
                assert cosine(values, exact[tensor.name]) > 0.995


def check_ranges(graph: QuantizedGraph, config: AcceleratorConfig) -> None:
    """Every code and parameter fits its field in memory."""
    for tensor in graph.tensors.values():
        if tensor.codes is not None:
            assert tensor.codes.dtype == np.dtype(tensor.kind)
            assert tensor.codes.shape == (tensor.rows, tensor.cols)
        elif tensor.kind != "record" and tensor.scale is not None:
            assert tensor.scale > 0
    for op in graph.operations:
        match op:
            case QGemm(records=Records() as records):
                assert len(records.bias) == (op.a.rows if op.by_row else op.b.rows)
                assert len(records.multiplier) == len(records.selector) == len(records.bias)
                bias = records.bias.astype(np.int64)
                assert np.abs(bias).max() + op.a.cols * 127 * 128 < 2**31
                assert 0 < records.multiplier.min() <= records.multiplier.max() <= 65535
                assert 0 <= records.selector.min() <= records.selector.max() <= 3
                if op.activation is not None:
                    table = config.gelu == "table"
                    assert op.activation.nbytes == (1 << config.activation_bits if table else 24)
            case QSoftmax():
                assert 0 < op.numerator < 2**32
                assert op.table.shape == (256,) and op.table[0] == 127
            case QNorm():
                assert 0 <= op.epsilon < 2**32
                gains = op.gains
                assert gains
                for gain in gains:
                    assert gain.gains.dtype == np.int16 and gain.biases.dtype == np.int32
                    assert gain.shift in arithmetic.NORM_SHIFTS


def test_stream_shares_one_scale(transformer: Callable[..., Path]) -> None:
    graph, quantized, _ = compiled(transformer())
    scales = {
        quantized.tensors[name].scale
        for op in quantized.operations
        if isinstance(op, QGemm) and op.residual is not None
        for name in (op.residual.tensor, op.out.tensor)
    }
    assert len(scales) == 1
    assert {op.residual is not None for op in graph.operations if isinstance(op, Gemm)}


def test_outputs_and_sums_do_not_saturate(transformer: Callable[..., Path]) -> None:
    graph, quantized, config = compiled(transformer(head="tokens"))
    for image in images(16):
        _, codes = run_both(graph, quantized, config, image)
        for tensor in quantized.tensors.values():
            if tensor.kind == "int16":
                assert np.abs(codes[tensor.name].astype(int)).max() < 32767


def test_norm_writes_both_widths(transformer: Callable[..., Path]) -> None:
    """In a post-norm model the norm's result is multiplied and added."""
    _, quantized, _ = compiled(transformer(order="post", head="tokens"))
    norms = [op for op in quantized.operations if isinstance(op, QNorm)]
    both = [op for op in norms if op.int8 is not None and op.int16 is not None]
    assert len(both) == 4
    for op in both:
        assert op.int8 and op.int16
        assert op.int16.target.tensor == f"{op.int8.target.tensor}/int16"
    assert norms[-1].int8 is None and norms[-1].int16


def test_residual_bits(transformer: Callable[..., Path]) -> None:
    config = ECP5_85K.replace(residual_bits=13)
    graph, quantized, _ = compiled(transformer(), config)
    for image in images(4):
        _, codes = run_both(graph, quantized, config, image)
        for tensor in quantized.tensors.values():
            if tensor.kind == "int16" and tensor.role != Role.CONSTANT:
                assert np.abs(codes[tensor.name].astype(int)).max() < 4096


def test_polynomial_computes_gelu_only(transformer: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r'relu.*gelu = "table"'):
        compiled(transformer(activation="Relu"), POLYNOMIAL)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"estimator": "magic"}, "minmax, percentile, mse"),
        ({"weights": "row"}, "channel, tensor"),
        ({"percentile": 101.0}, "percentile is 101"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"smoothing": float("nan")}, "smoothing is nan"),
        ({"residual_bits": 7}, "from 8 to 16"),
        ({"scores_headroom": 0.9}, "scores_headroom"),
    ],
)
def test_options_without_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        QuantizationOptions(**options)


def test_one_scale_for_all_weights(transformer: Callable[..., Path]) -> None:
    graph = lower(import_model(transformer(bias=False)))
    samples = {"image": images(8)}
    for weights, alike in (("tensor", True), ("channel", False)):
        options = QuantizationOptions(weights=weights)  # type: ignore[arg-type]
        quantized = quantize(graph, ECP5_85K, samples, options)
        check_ranges(quantized, ECP5_85K)
        records = [
            op.records
            for op in quantized.operations
            if isinstance(op, QGemm) and isinstance(op.records, Records)
        ]
        products = [r for r in records if len(np.unique(r.bias)) > 1]
        assert products
        for r in products:
            assert (len({*zip(r.multiplier, r.selector, strict=True)}) == 1) == alike


def test_fewer_residual_bits(transformer: Callable[..., Path]) -> None:
    """The stream's codes stay small, and its step grows by as many bits."""
    graph = lower(import_model(transformer()))
    samples = {"image": images(8)}
    full = quantize(graph, ECP5_85K, samples)
    few = quantize(graph, ECP5_85K, samples, QuantizationOptions(residual_bits=9))
    for name, tensor in full.tensors.items():
        if tensor.kind == "int16":
            scale = few.tensors[name].scale
            assert scale and tensor.scale and scale / tensor.scale == pytest.approx(32767 / 255)


def test_no_zero_points(transformer: Callable[..., Path]) -> None:
    graph = lower(import_model(transformer()))
    options = QuantizationOptions(zero_points=False)
    for quantized, some in (
        (quantize(graph, ECP5_85K, {"image": images(8)}), True),
        (quantize(graph, ECP5_85K, {"image": images(8)}, options), False),
    ):
        assert any(tensor.zero for tensor in quantized.tensors.values()) == some


@pytest.mark.parametrize("estimator", ["minmax", "percentile", "mse"])
def test_estimators(estimator: str, transformer: Callable[..., Path]) -> None:
    graph = lower(import_model(transformer()))
    options = QuantizationOptions(estimator)  # type: ignore[arg-type]
    quantized = quantize(graph, ECP5_85K, {"image": images(8)}, options)
    check_ranges(quantized, ECP5_85K)


Build = Callable[..., Any]


def product(
    builder: Build, tmp_path: Path, weight: np.ndarray, bias: np.ndarray
) -> tuple[Graph, QuantizedGraph]:
    b = builder(17)
    x = b.op("MatMul", b.input("image", [1, 4, 8]), b.constant(weight))
    path = tmp_path / "model.onnx"
    onnx.save(b.model({b.op("Add", x, b.constant(bias)): [1, 4, len(bias)]}), path)
    graph = lower(import_model(path))
    samples = np.random.default_rng(6).normal(0, 1, (8, 1, 4, 8))
    return graph, quantize(graph, ECP5_85K, {"image": samples})


def test_extreme_weight_rows(builder: Build, tmp_path: Path) -> None:
    """Channels of zeros, of tiny and of huge weights, with and without a bias, all stay close."""
    random = np.random.default_rng(5)
    weight = random.normal(0, 1, (8, 8))
    weight *= np.array([0, 0, 1e-20, 1e-9, 1e-9, 1, 1, 1e3])
    bias = np.array([0, 3.0, 0, 0, 2.0, 0, 100.0, 5.0])
    graph, quantized = product(builder, tmp_path, weight, bias)
    check_ranges(quantized, ECP5_85K)
    exact, codes = run_both(graph, quantized, ECP5_85K, random.normal(0, 1, (1, 4, 8)))
    output = next(t for t in quantized.tensors.values() if t.role == Role.OUTPUT)
    error = np.abs(dequantize(output, codes[output.name]) - exact[output.name])
    assert output.scale and error.max() < 60  # int8 weights and inputs at magnitudes of thousands
    assert error[:, :7].max() < 2 * output.scale + 0.05


def test_all_zero(builder: Build, tmp_path: Path) -> None:
    graph, quantized = product(builder, tmp_path, np.zeros((8, 3)), np.zeros(3))
    _, codes = run_both(graph, quantized, ECP5_85K, np.ones((1, 4, 8)))
    output = next(t for t in quantized.tensors.values() if t.role == Role.OUTPUT)
    assert not codes[output.name].any()


def test_scales_of_one_and_more_are_lowered(builder: Build, tmp_path: Path) -> None:
    """A product with few, coarse terms: its int16 result is no finer than its sums."""
    b = builder(17)
    x = b.input("image", [1, 4, 8])
    first = b.op("Slice", x, *(b.constant(np.array([n])) for n in (0, 1, 2)))
    path = tmp_path / "model.onnx"
    onnx.save(b.model({b.op("MatMul", first, b.constant(np.ones((1, 2)))): [1, 4, 2]}), path)
    graph = lower(import_model(path))
    samples = np.random.default_rng(6).normal(0, 1, (8, 1, 4, 8))
    quantized = quantize(graph, ECP5_85K, {"image": samples})
    check_ranges(quantized, ECP5_85K)
    exact, codes = run_both(graph, quantized, ECP5_85K, samples[0])
    output = next(t for t in quantized.tensors.values() if t.role == Role.OUTPUT)
    assert cosine(dequantize(output, codes[output.name]), exact[output.name]) > 0.999


def test_bad_graphs_are_refused(transformer: Callable[..., Path]) -> None:
    graph = lower(import_model(transformer(layers=1)))
    samples = {"image": images(2)}

    def changed(kind: type, **changes: object) -> Graph:
        op = next(op for op in graph.operations if isinstance(op, kind))
        new = replace(op, **changes)
        operations = tuple(new if o is op else o for o in graph.operations)
        return replace(graph, operations=operations)

    with pytest.raises(ModelError, match="not positive"):
        quantize(changed(Gemm, factor=-1.0), ECP5_85K, samples)
    softmax = next(op for op in graph.operations if isinstance(op, Softmax))
    after = next(
        op
        for op in graph.operations
        if isinstance(op, Gemm) and op.a.tensor == softmax.target.tensor
    )
    operations = tuple(op for op in graph.operations if op is not after)
    with pytest.raises(DataError, match="NaN"):  # its result is read but never written
        quantize(replace(graph, operations=operations), ECP5_85K, samples)


def test_quantize_input() -> None:
    tensor = QTensor("x", 1, 3, Role.INPUT, 3, "int8", 0.5, -10)
    codes = quantize_input(tensor, np.array([[0.0, 1.3, 1000.0]]))
    assert codes.dtype == np.int8 and codes.tolist() == [[-10, -7, 127]]
    assert dequantize(tensor, codes).tolist() == [[0.0, 1.5, 68.5]]
    wide = replace(tensor, kind="int16", zero=0)
    assert quantize_input(wide, np.full((1, 3), 1e9), residual_bits=12).tolist() == [[2047] * 3]
    for bad in (np.zeros((3, 1)), np.full((1, 3), np.nan)):
        with pytest.raises(DataError, match="'x'"):
            quantize_input(tensor, bad)
    with pytest.raises(DataError, match="no scale"):
        dequantize(replace(tensor, scale=None), codes)
