"""`gateformer inspect`: the table and its answer in JSON."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateformer.cli.main import main
from gateformer.examples.digits.demo import MODEL


def inspected(tmp_path: Path, *arguments: object) -> dict:
    answer = tmp_path / "answer.json"
    assert main(["inspect", *map(str, arguments), "--json", str(answer)]) == 0
    return json.loads(answer.read_text())


def open_model(path: Path, *operators: str) -> Path:
    """Products with operators between them, and a symbolic axis that two inputs share."""
    nodes = [helper.make_node("Add", ["a", "b"], ["h0"], "sum")]
    for index, name in enumerate(operators):
        nodes.append(helper.make_node("MatMul", [f"h{index}", "w"], [f"p{index}"], f"mul{index}"))
        nodes.append(helper.make_node(name, [f"p{index}"], [f"h{index + 1}"], f"{name}{index}"))
    nodes.append(helper.make_node("MatMul", [f"h{len(operators)}", "w"], ["y"], "last"))
    dims = ["rows", 8]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = inspected(tmp_path, MODEL, "--config", "small")
    assert answer["supported"] and answer["fits"]
    assert answer["totals"]["macs"] == sum(node["macs"] for node in answer["nodes"]) > 0
    assert {limit["resource"] for limit in answer["limits"]} >= {"k_max", "local memory"}
    assert "small: k_max" in capsys.readouterr().out


def test_one_shape_for_two_inputs(tmp_path: Path) -> None:
    path = open_model(tmp_path / "model.onnx", "Relu")
    answer = inspected(tmp_path, path, "--shape", "a=5,8")
    assert answer["supported"] and "limits" not in answer
    assert answer["totals"]["macs"] == 2 * 5 * 8 * 8


def test_a_model_that_does_not_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = open_model(tmp_path / "model.onnx", "Sin", "Cos")
    answer = inspected(tmp_path, path, "--shape", "a=5,8", "--config", "small")
    assert not answer["supported"] and not answer["fits"]
    assert sorted(refusal["node"] for refusal in answer["refusals"]) == ["Cos1", "Sin0"]
    assert "does not compile" in capsys.readouterr().out


def test_a_missing_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(open_model(tmp_path / "model.onnx", "Relu"))]) == 2
    error = capsys.readouterr().err
    assert "--shape a=" in error and "'b'" in error and error.count("\n") == 1


def test_a_bias_of_zeros_changes_nothing(tmp_path: Path) -> None:
    path = open_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "product"
    model.graph.node.append(helper.make_node("Add", ["product", "zeros"], ["y"], "bias"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "zeros"))
    onnx.save(model, path)
    answer = inspected(tmp_path, path, "--shape", "a=5,8")
    (bias,) = (node for node in answer["nodes"] if node["node"] == "bias")
    assert answer["supported"]
    assert (bias["place"], bias["reason"]) == ("moves data", "it changes nothing")
