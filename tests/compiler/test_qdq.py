"""Quantization-aware files: pairs leave the graph, their grids are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateformer.compiler.importer import ImportedModel, evaluate, import_model
from gateformer.compiler.reference import reference_session
from gateformer.examples.digits.demo import CALIBRATION, MODEL
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
        ([node("DequantizeLinear", ["w", "negative", "i"], ["d"]), node("MatMul", ["x", "d"], ["y"])],
         "not positive"),
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
    def __init__(self, count: int) -> None:
        with np.load(CALIBRATION) as file:
            self._feeds = iter([{n: file[n][i] for n in file.files} for i in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The digits model as `quantize_static` writes it."""
    folder = tmp_path_factory.mktemp("qdq")

    def quantize(kind: str, **extra: Any) -> Path:
        path = folder / f"{kind}.onnx"
        if not path.exists():
            ort_quantization.quantize_static(
                MODEL,
                path,
                _Samples(16),
                quant_format=ort_quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=ort_quantization.QuantType[kind],
                weight_type=ort_quantization.QuantType.QInt8,
                extra_options=extra,
            )
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
