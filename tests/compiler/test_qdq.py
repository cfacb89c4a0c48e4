"""Quantization-aware files: pairs leave the graph, their grids are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime.quantization as ort_quantization
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.graph import Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import ImportedModel, evaluate, import_model
from gateformer.compiler.inspection import inspect
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import quantize
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.compiler.reference import reference_session
from gateformer.compiler.samples import split_samples
from gateformer.examples.digits.demo import CALIBRATION, MODEL
from gateformer.examples.families.families import FAMILIES
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import find_config
from gateformer.spec.errors import ModelError

node = helper.make_node
RANDOM = np.random.default_rng(11)
WEIGHT = RANDOM.integers(-127, 128, (8, 6)).astype(np.int8)
ROWS = RANDOM.uniform(0.01, 0.02, 6).astype(np.float32)
SCALARS: dict[str, np.ndarray] = {
    "s": np.array(0.05, np.float32),
    "u": np.array(100, np.uint8),
    "low": np.array(0, np.uint8),
    "i": np.array(0, np.int8),
    "u16": np.array(30000, np.uint16),
    "w": WEIGHT,
    "ws": ROWS,
    "wz": np.zeros(6, np.int8),
    "b": np.arange(6, dtype=np.int32),
    "bs": np.array(0.001, np.float32),
    "negative": np.array(-1, np.float32),
}


def build(
    path: Path, nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), opset: int = 17
) -> Path:
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in SCALARS.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


def pair(value: str, result: str, zero: str = "u", domain: str = "") -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", [value, "s", zero], [f"{result}/codes"], domain=domain),
        node("DequantizeLinear", [f"{result}/codes", "s", zero], [result], domain=domain),
    ]


LINEAR = [
    node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=1),
    node("DequantizeLinear", ["b", "bs"], ["bf"]),
    node("MatMul", ["xf", "wf"], ["m"], "product"),
    node("Add", ["m", "bf"], ["a"]),
]


def run(model: ImportedModel, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    tensors = {**model.constants, **feeds}
    for record in model.nodes:
        outputs = evaluate(record, tensors, model.opset)
        tensors |= dict(zip(record.outputs, outputs, strict=True))
    return [tensors[name] for name in model.outputs]


def check(path: Path) -> ImportedModel:
    """The imported model equals the reference."""
    model = import_model(path)
    x = RANDOM.normal(size=(4, 8)).astype(np.float32)
    expected = reference_session(path).run(None, {"x": x})
    for got, wanted in zip(run(model, {"x": x}), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    return model


def test_pairs_vanish_and_are_recorded(tmp_path: Path) -> None:
    nodes = [*pair("x", "xf"), *LINEAR, *pair("a", "y", "i")]
    model = check(build(tmp_path / "m.onnx", nodes))
    assert [record.operator for record in model.nodes] == ["MatMul", "Add", "Identity"]
    grid = model.quantization["x"]
    assert (float(grid.scale), int(grid.zero), grid.bits, grid.axis) == (
        np.float32(0.05),
        100 - 128,
        8,
        None,
    )
    assert int(model.quantization["a"].zero) == 0
    weights = model.quantization["wf"]
    assert weights.axis == 1
    np.testing.assert_array_equal(weights.scale, ROWS.astype(np.float64))
    np.testing.assert_array_equal(model.constants["wf"], WEIGHT * ROWS)
    assert "bf" not in model.quantization
    np.testing.assert_allclose(model.constants["bf"], np.arange(6) * 0.001, rtol=1e-6)


def test_int16_pairs_of_onnxruntime(tmp_path: Path) -> None:
    model = check(
        build(
            tmp_path / "m.onnx",
            [*pair("x", "xf", "u16", domain="com.microsoft"), *LINEAR[:3]],
            ("m",),
        )
    )
    grid = model.quantization["x"]
    assert (grid.bits, int(grid.zero)) == (16, 30000 - 32768)


def test_float_weights_that_are_rounded(tmp_path: Path) -> None:
    """The form that PyTorch and Brevitas write."""
    nodes = [
        node("Constant", [], ["v"], value=numpy_helper.from_array((WEIGHT * ROWS).T.copy())),
        node("QuantizeLinear", ["v", "ws", "wz"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "ws", "wz"], ["d"], axis=0),
        node("Transpose", ["d"], ["wf"], perm=[1, 0]),
        *pair("x", "xf"),
        node("MatMul", ["xf", "wf"], ["y"]),
    ]
    model = check(build(tmp_path / "m.onnx", nodes))
    assert model.quantization["wf"].axis == 1
    np.testing.assert_allclose(model.constants["wf"], WEIGHT * ROWS, rtol=1e-6)


def test_codes_that_are_moved(tmp_path: Path) -> None:
    quantize, dequantize = pair("x", "xf")
    dequantize.input[0] = "turned"
    turn = node("Transpose", ["xf/codes"], ["turned"], perm=[1, 0])
    nodes = [quantize, turn, dequantize, node("Softmax", ["xf"], ["y"])]
    model = check(build(tmp_path / "m.onnx", nodes))
    assert [record.operator for record in model.nodes] == ["Transpose", "Softmax"]
    assert model.quantization["x"] == model.quantization["turned"]


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(-127, 127, True), (-128, 127, True), (-8, 7, False)]
)
def test_codes_that_are_clipped(tmp_path: Path, low: int, high: int, fits: bool) -> None:
    """As Brevitas writes them."""
    SCALARS["low8"], SCALARS["high8"] = np.array(low, np.int8), np.array(high, np.int8)
    quantize, dequantize = pair("x", "xf", "i")
    dequantize.input[0] = "clipped"
    clip = node("Clip", ["xf/codes", "low8", "high8"], ["clipped"], "clip")
    weights = [
        node("Clip", ["w", "low8", "high8"], ["wc"]),
        node("DequantizeLinear", ["wc", "ws", "wz"], ["wf"], axis=1),
    ]
    nodes = [quantize, clip, dequantize, *weights, node("MatMul", ["xf", "wf"], ["y"])]
    path = build(tmp_path / "m.onnx", nodes)
    if fits:
        assert [record.operator for record in check(path).nodes] == ["MatMul"]
        return
    with pytest.raises(ModelError, match=r"'clip'.*16 of the 256 codes"):
        import_model(path)


def test_a_pair_that_replaced_a_relu(tmp_path: Path) -> None:
    model = check(build(tmp_path / "m.onnx", [*pair("x", "xf"), *LINEAR, *pair("a", "y", "low")]))
    assert [record.operator for record in model.nodes] == ["MatMul", "Add", "Relu", "Identity"]
    (result,) = run(model, {"x": np.full((4, 8), -3, np.float32)})
    assert result.min() == 0


@pytest.mark.parametrize("operator", ["Softmax", "Sigmoid", "Relu"])
def test_results_that_are_never_negative_need_no_relu(tmp_path: Path, operator: str) -> None:
    nodes = [*pair("x", "xf"), *LINEAR, node(operator, ["a"], ["p"]), *pair("p", "y", "low")]
    operators = [r.operator for r in check(build(tmp_path / "m.onnx", nodes)).nodes]
    assert operators == ["MatMul", "Add", operator, "Identity"]


def test_erf_plus_one_needs_no_relu(tmp_path: Path) -> None:
    one = node("Constant", [], ["one"], value_float=1.0)
    nodes = [one, node("Erf", ["x"], ["e"]), *pair("e", "ef"), node("Add", ["ef", "one"], ["p"])]
    model = check(build(tmp_path / "m.onnx", [*nodes, *pair("p", "y", "low")]))
    assert "Relu" not in [record.operator for record in model.nodes]


@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        ([*pair("x", "y")[:1], node("DequantizeLinear", ["y/codes", "bs", "u"], ["y"])], "scale"),
        ([*pair("x", "a"), *pair("x", "c", "i"), node("Add", ["a", "c"], ["y"])], "another grid"),
        ([node("ReduceMax", ["x"], ["t"], keepdims=0),
          node("QuantizeLinear", ["x", "t"], ["q"]), node("DequantizeLinear", ["q", "t"], ["y"])],
         "not constant"),
        ([pair("x", "a")[0], node("Add", ["a/codes", "u"], ["q"]),
          node("DequantizeLinear", ["q", "s", "u"], ["y"])], "QDQ"),
        ([node("Cast", ["x"], ["q"], to=TensorProto.INT8),
          node("DequantizeLinear", ["q", "s", "i"], ["y"])], "QuantizeLinear"),
        ([node("DequantizeLinear", ["w", "negative", "i"], ["d"]),
          node("MatMul", ["x", "d"], ["y"])], "not positive"),
        ([node("DequantizeLinear", ["w", "ws", "wz"], ["d"], axis=0),
          node("MatMul", ["x", "d"], ["y"])], "one scale for each index of axis 0"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, nodes: list[onnx.NodeProto], what: str) -> None:
    with pytest.raises(ModelError) as caught:
        import_model(build(tmp_path / "m.onnx", nodes))
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_outputs_that_are_codes(tmp_path: Path) -> None:
    nodes = [*LINEAR, *pair("a", "y")[:1]]
    nodes[2] = node("MatMul", ["x", "wf"], ["m"])
    with pytest.raises(ModelError, match="DequantizeLinear"):
        import_model(build(tmp_path / "m.onnx", nodes, ("y/codes",)))


# --------------------------------------------------------------------------- onnxruntime's files


class _Samples(ort_quantization.CalibrationDataReader):
    def __init__(self, samples: dict[str, np.ndarray]) -> None:
        self._feeds = iter(split_samples(samples))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _quantize(
    source: Path, target: Path, samples: dict[str, np.ndarray], kind: str, **extra: Any
) -> None:
    ort_quantization.quantize_static(
        source,
        target,
        _Samples(samples),
        quant_format=ort_quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort_quantization.QuantType[kind],
        weight_type=ort_quantization.QuantType.QInt8,
        extra_options=extra,
    )


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The digits model as `quantize_static` writes it."""
    folder = tmp_path_factory.mktemp("qdq")

    def quantize(kind: str, **extra: Any) -> Path:
        path = folder / f"{kind}.onnx"
        if not path.exists():
            with np.load(CALIBRATION) as file:
                samples = {name: file[name][:16] for name in file.files}
            _quantize(MODEL, path, samples, kind, **extra)
        return path

    return quantize


@pytest.mark.parametrize("kind", ["QUInt8", "QInt8", "QInt16"])
def test_files_of_onnxruntime(quantized: Callable[..., Path], kind: str) -> None:
    path = quantized(kind, ActivationSymmetric=kind != "QUInt8")
    model = import_model(path)
    assert not any("Linear" in record.operator for record in model.nodes)
    grids = [g for name, g in model.quantization.items() if name in model.values]
    assert len(grids) > 50
    assert {grid.bits for grid in grids} == {16 if kind == "QInt16" else 8}
    assert any(grid.zero for grid in grids) == (kind == "QUInt8")
    with np.load(CALIBRATION) as file:
        feeds = {name: file[name][3] for name in file.files}
    expected = reference_session(path).run(None, feeds)[0]
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- integers from it


def golden(path: Path, samples: dict[str, np.ndarray]) -> tuple[QuantizedGraph, list[np.ndarray]]:
    """The integer graph, and the model's first output for each sample by the golden model."""
    config = find_config("ecp5-85k")
    graph = lower(import_model(path))
    quantized = quantize(graph, config, samples)
    before, after = HostRunner(graph.host.before), HostRunner(graph.host.after)
    tensors = quantized.tensors.values()
    results = []
    for sample in split_samples(samples):
        values = before.run(sample)
        codes = {t.name: quantize_input(t, values[t.name]) for t in tensors if t.role is Role.INPUT}
        found = run_quantized(quantized, codes, config)
        outputs = {t.name: dequantize(t, found[t.name]) for t in tensors if t.role is Role.OUTPUT}
        results.append(next(iter(after.run(outputs).values())))
    return quantized, results


def decibels(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - got).sum()))


def test_the_grid_between_two_products(tmp_path: Path) -> None:
    """Asymmetric codes: what the file's own integers compute, but for one step here and there."""
    nodes = [
        *pair("x", "xf"),
        *LINEAR,
        *pair("a", "af"),
        node("DequantizeLinear", ["w2", "ws2"], ["wf2"], axis=0),
        node("Gemm", ["af", "wf2"], ["y"], transB=1),
    ]
    SCALARS["w2"] = RANDOM.integers(-128, 128, (5, 6)).astype(np.int8)
    SCALARS["w2"][2, 3] = -128
    SCALARS["ws2"] = RANDOM.uniform(0.01, 0.02, 5).astype(np.float32)
    path = build(tmp_path / "m.onnx", nodes)
    x = RANDOM.normal(0, 1.5, (20, 4, 8)).astype(np.float32)
    quantized, results = golden(path, {"x": x})
    given = next(t for t in quantized.tensors.values() if t.role is Role.INPUT)
    between = quantized.tensors["a"]
    for tensor in (given, between):
        assert (tensor.scale, tensor.zero) == (np.float32(0.05), 100 - 128)
    np.testing.assert_array_equal(quantized.tensors["a/weight"].codes, WEIGHT.T)
    np.testing.assert_array_equal(quantized.tensors["y/matrix/weight"].codes, SCALARS["w2"])
    session = onnxruntime.InferenceSession(path)
    expected = np.stack([session.run(None, {"x": rows})[0] for rows in x])
    assert decibels(expected, np.stack(results)) > 45
    step = 0.05 * 128 * 0.02 * 1.1
    assert np.abs(expected - np.stack(results)).max() < step


def test_digits_at_the_scales_of_the_file(quantized: Callable[..., Path]) -> None:
    path = quantized("QInt8", ActivationSymmetric=True)
    with np.load(CALIBRATION) as file:
        samples = {name: file[name][:16] for name in file.files}
    graph, results = golden(path, samples)
    model = onnx.load(path)
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = graph.tensors["/blocks/blocks.0/mlp/mlp.1/Mul_1_output_0/weight"].codes
    assert any(np.array_equal(weights, array.T) for array in arrays.values() if array.ndim == 2)
    norm = graph.tensors["/blocks/blocks.0/mlp_norm/LayerNormalization_output_0"]
    (scale,) = (a for n, a in arrays.items() if n == f"{norm.name}_scale")
    assert norm.scale == scale
    used, given = inspect(import_model(path)).scales
    assert 10 < used < given
    float_session, session = reference_session(path), onnxruntime.InferenceSession(path)
    feeds = split_samples(samples)
    exact = np.stack([float_session.run(None, sample)[0] for sample in feeds])
    rounded = np.stack([session.run(None, sample)[0] for sample in feeds])
    ours = decibels(exact, np.stack(results))
    # The residual stream stays finer than the file's, so the result is nearer to float.
    assert ours > 30 and ours > decibels(exact, rounded)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_families_at_the_scales_of_the_file(name: str, tmp_path: Path) -> None:
    """Decomposed and whole norms, embeddings on the host, masks."""
    family = next(family for family in FAMILIES if family.name == name)
    samples = family.inputs(4, seed=1)
    path = tmp_path / "model.onnx"
    _quantize(family.path, path, samples, "QInt8", ActivationSymmetric=True)
    graph, results = golden(path, samples)
    scales = {
        grid.scale.item() for grid in import_model(path).quantization.values() if grid.axis is None
    }
    codes = [t for t in graph.tensors.values() if t.kind == "int8" and t.role is Role.VALUE]
    assert sum(tensor.scale in scales for tensor in codes) > 5
    session = reference_session(path)
    exact = np.stack([session.run(None, sample)[0] for sample in split_samples(samples)])
    assert decibels(exact, np.stack(results)) > 28


@pytest.mark.parametrize(("kind", "what"), [("QUInt8", "symmetrically"), ("QInt16", "16 bits")])
def test_grids_that_no_engine_has(quantized: Callable[..., Path], kind: str, what: str) -> None:
    path = quantized(kind, ActivationSymmetric=kind != "QUInt8")
    with np.load(CALIBRATION) as file:
        samples = {name: file[name][:2] for name in file.files}
    with pytest.raises(ModelError, match=what) as caught:
        golden(path, samples)
    assert str(caught.value).startswith("node '")
    assert not inspect(import_model(path)).supported


@pytest.mark.parametrize(
    ("weights", "axis", "what"),
    [
        (["w", "x8"], 0, "for each input"),
        (["w", "bs", "i3"], 1, "zero point"),
        (["w16", "bs", "i16"], 1, "16 bits"),
    ],
)
def test_weights_that_no_engine_has(
    tmp_path: Path, weights: list[str], axis: int, what: str
) -> None:
    SCALARS["x8"] = np.full(8, 0.1, np.float32) * np.arange(1, 9, dtype=np.float32)
    SCALARS["i3"] = np.array(3, np.int8)
    SCALARS["i16"], SCALARS["w16"] = np.array(0, np.int16), WEIGHT.astype(np.int16)
    nodes = [
        node("DequantizeLinear", weights, ["wf"], axis=axis),
        node("MatMul", ["x", "wf"], ["y"], "product"),
    ]
    with pytest.raises(ModelError, match=what) as caught:
        lower(import_model(build(tmp_path / "m.onnx", nodes, opset=21)))
    assert str(caught.value).startswith("node 'product'")
