"""Reading ONNX files: constants fold, shapes come out, and what is wrong is said in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateformer.compiler.importer import import_model
from gateformer.spec.errors import ModelError

Build = Callable[..., Any]
SHAPE: list[int | str] = [1, 4, 8]


def refusal(path: Path, **arguments: object) -> str:
    with pytest.raises(ModelError) as caught:
        import_model(path, **arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_folds_shape_arithmetic(transformer: Callable[..., Path]) -> None:
    model = import_model(transformer(dynamic=True, token="expand"), {"image": (1, 2, 6, 6)})
    operators = [node.operator for node in model.nodes]
    assert operators[:5] == ["Conv", "Reshape", "Transpose", "Concat", "Add"]
    assert not {"Shape", "Expand", "Where", "Identity", "Unsqueeze"} & set(operators)
    assert model.values[model.outputs[0]].shape == (1, 5)
    assert model.inputs == ("image",)


def test_drops_what_no_output_needs(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    x = b.input("x", SHAPE)
    b.op("Sin", x)
    path = write(b.model({b.op("Relu", x): SHAPE}), tmp_path)
    assert [node.operator for node in import_model(path).nodes] == ["Relu"]


def test_names_unnamed_nodes(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.op("Relu", b.op("Relu", b.input("x", SHAPE)))
    for node in b.nodes:
        node.ClearField("name")
    model = import_model(write(b.model({y: SHAPE}), tmp_path))
    assert [node.name for node in model.nodes] == ["Relu_0", "Relu_1"]


def test_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"garbage \xff\xfe" * 40, b"\x08\x08", b"PK\x03\x04"])
def test_no_onnx_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "is not an ONNX file" in refusal(path)


def test_truncated_file(transformer: Callable[..., Path]) -> None:
    path = transformer()
    path.write_bytes(path.read_bytes()[:-100])
    assert "ONNX" in refusal(path)


@pytest.mark.parametrize("opset", [7, 12, 22])
def test_opset(opset: int, builder: Build, tmp_path: Path) -> None:
    b = builder(opset)
    path = write(b.model({b.op("Relu", b.input("x", SHAPE)): SHAPE}), tmp_path)
    assert f"opset {opset}" in refusal(path)


def test_foreign_domain(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.op("FusedGelu", b.input("x", SHAPE), domain="com.microsoft")
    model = b.model({y: SHAPE})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    message = refusal(write(model, tmp_path))
    assert message.startswith("node 'node_0' (operator 'FusedGelu'): no engine")
    assert "com.microsoft" in message


def test_unknown_operator(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    path = write(b.model({b.op("Frobnicate", b.input("x", SHAPE)): SHAPE}), tmp_path)
    assert refusal(path).startswith("node 'node_0' (operator 'Frobnicate'): no engine")


def test_a_name_that_nothing_computes(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    path = write(b.model({b.op("Relu", b.input("x", SHAPE), "nobody"): SHAPE}), tmp_path)
    assert refusal(path).startswith("node 'node_0' (operator 'Relu') reads 'nobody'")


def test_dynamic_dimensions(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.op("Relu", b.input("x", ["batch", "length", 8]))
    path = write(b.model({y: ["batch", "length", 8]}), tmp_path)
    assert "'batch'" in refusal(path)
    assert "batch (first axis) must be 1" in refusal(path, shapes={"x": (2, 4, 8)})
    assert "does not fit" in refusal(path, shapes={"x": (1, 4, 9)})
    assert "does not fit" in refusal(path, shapes={"x": (1, 4)})
    assert "'z'" in refusal(path, shapes={"x": (1, 4, 8), "z": (1,)})
    assert import_model(path, {"x": (1, 4, 8)}).values[y].shape == (1, 4, 8)


def test_one_shape_is_enough_for_inputs_that_share_dimensions(
    builder: Build, tmp_path: Path
) -> None:
    b = builder(17)
    names = ("ids", "mask", "kinds")
    ids, mask, kinds = (b.input(n, ["batch", "length"], TensorProto.INT64) for n in names)
    y = b.op("Cast", b.op("Add", b.op("Add", ids, mask), kinds), to=TensorProto.FLOAT)
    path = write(b.model({y: ["batch", "length"]}), tmp_path)
    model = import_model(path, {"ids": (1, 37)})
    assert {model.values[name].shape for name in (*names, y)} == {(1, 37)}
    message = refusal(path)
    assert all(repr(name) in message for name in names) and "--shape ids=" in message
    message = refusal(path, shapes={"ids": (1, 37), "mask": (1, 36)})
    assert "'length' is 37 in input 'ids' and 36 in 'mask'" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(bad: float, builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    weight = np.ones((8, 8))
    weight[3, 4] = bad
    y = b.op("MatMul", b.input("x", SHAPE), b.constant(weight))
    assert "weight 'w0' holds NaN" in refusal(write(b.model({y: SHAPE}), tmp_path))


def test_constant_nodes_that_are_not_finite(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    value = numpy_helper.from_array(np.full(8, np.nan, np.float32))
    y = b.op("Add", b.input("x", SHAPE), b.op("Constant", value=value))
    assert "node_0" in refusal(write(b.model({y: SHAPE}), tmp_path))


def test_external_data(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.linear(b.input("x", SHAPE), 8, 8)
    path = tmp_path / "model.onnx"
    onnx.save(
        b.model({y: SHAPE}),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert len(import_model(path).constants) == 2
    (tmp_path / "weights.bin").unlink()
    assert "external data" in refusal(path)


def test_shape_that_depends_on_data(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.op("NonZero", b.input("x", SHAPE))
    model = b.model({y: [3, "n"]})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "depends on data" in refusal(write(model, tmp_path))


def test_local_functions_are_inlined(builder: Build, tmp_path: Path) -> None:
    b = builder(17)
    y = b.op("Twice", b.input("x", SHAPE), domain="local")
    model = b.model({y: SHAPE})
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert [n.operator for n in import_model(write(model, tmp_path)).nodes] == ["Add"]
