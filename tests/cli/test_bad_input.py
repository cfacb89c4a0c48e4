"""Bad input: one clear line, exit code 2, nothing half-written."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateformer.cli.main import main
from gateformer.examples.digits.demo import CALIBRATION, MODEL
from gateformer.spec.configs import SMALL


def product_model(path, weights, operator="Relu", dims=(4, 8)):
    """x @ weights, then one more operator."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node(operator, ["h"], ["y"], name="last"),
        ],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (dims[0], weights.shape[1]))],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def fails(capsys, *arguments):
    """Runs a command that must fail; its one line of error."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture
def cal(tmp_path):
    path = tmp_path / "cal.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(4, 4, 8)))
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "model"
    arguments = ["compile", MODEL, "--calibration", CALIBRATION, "--config", "small", "-o", folder]
    assert main([str(a) for a in arguments]) == 0
    return folder


def compile_fails(capsys, tmp_path, model, calibration, config="small", *more):
    out = tmp_path / "out"
    line = fails(
        capsys, "compile", model, "--calibration", calibration, "--config", config, "-o", out, *more
    )
    assert not out.exists()
    assert not list(tmp_path.glob(".compile-*"))
    return line


def test_a_missing_model(capsys, tmp_path, cal):
    assert "none.onnx" in compile_fails(capsys, tmp_path, tmp_path / "none.onnx", cal)


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", bytes(range(256)) * 9])
def test_a_file_that_is_not_onnx(capsys, tmp_path, cal, content):
    model = tmp_path / "bad.onnx"
    model.write_bytes(content)
    assert "bad.onnx" in compile_fails(capsys, tmp_path, model, cal)


def test_an_operator_in_the_middle_that_nothing_supports(capsys, tmp_path, cal):
    model = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
            helper.make_node("Sinh", ["a"], ["b"], name="strange"),
            helper.make_node("MatMul", ["b", "w"], ["y"], name="two"),
        ],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 8))],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), model)
    line = compile_fails(capsys, tmp_path, model, cal)
    assert "strange" in line
    assert "Sinh" in line


def test_a_dynamic_shape_without_a_value(capsys, tmp_path, cal):
    model = product_model(tmp_path / "m.onnx", np.eye(8), dims=("tokens", 8))
    assert "'x'" in compile_fails(capsys, tmp_path, model, cal)
    out = tmp_path / "good"
    arguments = ["compile", model, "--calibration", cal, "--config", "small", "-o", out]
    assert main([str(a) for a in [*arguments, "--shape", "x=4,8"]]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(capsys, tmp_path, cal, value):
    weights = np.eye(8)
    weights[3, 3] = value
    model = product_model(tmp_path / "m.onnx", weights)
    assert "'w'" in compile_fails(capsys, tmp_path, model, cal)


BAD_ARRAYS = {
    "name": ({"z": np.zeros((4, 4, 8))}, "'z'"),
    "shape": ({"x": np.zeros((4, 8))}, "shape"),
    "type": ({"x": np.full((4, 4, 8), "a")}, "type"),
    "nan": ({"x": np.full((4, 4, 8), np.nan)}, "NaN"),
    "empty": ({"x": np.zeros((0, 4, 8))}, "sample"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_calibration_arrays(capsys, tmp_path, name):
    arrays, word = BAD_ARRAYS[name]
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    np.savez(tmp_path / "bad.npz", **arrays)
    assert word in compile_fails(capsys, tmp_path, model, tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not really a zip"])
def test_calibration_files(capsys, tmp_path, content):
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    assert "bad.npz" in compile_fails(capsys, tmp_path, model, path)


def test_a_config_that_cannot_work(capsys, tmp_path, cal):
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    config = tmp_path / "c.toml"
    config.write_text(SMALL.replace(name="c").to_toml().replace("lanes = 4", "lanes = 5", 1))
    assert "power of two" in compile_fails(capsys, tmp_path, model, cal, config)


def test_a_model_that_does_not_fit(capsys, tmp_path):
    model = product_model(tmp_path / "m.onnx", np.ones((8, 600)))
    proto = onnx.load(model)
    proto.graph.node[1].CopyFrom(helper.make_node("LayerNormalization", ["h", "g"], ["y"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(600, np.float32), "g"))
    onnx.save(proto, model)
    np.savez(tmp_path / "cal.npz", x=np.random.default_rng(0).normal(size=(2, 4, 8)))
    line = compile_fails(capsys, tmp_path, model, tmp_path / "cal.npz")
    assert "600" in line
    assert "norm_length" in line


@pytest.mark.parametrize("batch", ["0", "-1", "5"])
def test_a_batch_that_the_config_cannot_run(capsys, tmp_path, cal, batch):
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    line = compile_fails(capsys, tmp_path, model, cal, "small", "--batch", batch)
    assert "1 to 4 samples" in line


def test_one_array_instead_of_an_archive(capsys, tmp_path):
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    np.save(tmp_path / "cal.npy", np.ones((2, 4, 8)))
    assert "as .npz" in compile_fails(capsys, tmp_path, model, tmp_path / "cal.npy")


def test_a_trace_of_the_golden_model(capsys, tmp_path):
    command = ["simulate", tmp_path, "--input", tmp_path, "--output", tmp_path / "o.npz"]
    line = fails(capsys, *command, "--engine", "golden", "--trace", tmp_path / "t.fst")
    assert "--engine rtl" in line


def test_an_output_that_cannot_be_written(capsys, tmp_path, cal):
    model = product_model(tmp_path / "m.onnx", np.eye(8))
    (tmp_path / "file").write_text("")
    command = ["compile", model, "--calibration", cal, "--config", "small"]
    assert "file" in fails(capsys, *command, "-o", tmp_path / "file" / "out")
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("keep me")
    assert "precious" not in fails(capsys, *command, "-o", other)
    assert (other / "precious.txt").read_text() == "keep me"
    fails(capsys, "configs", "--json", tmp_path / "file" / "x.json")


def simulate_fails(capsys, tmp_path, folder, arrays=None):
    source = tmp_path / "in.npz"
    np.savez(source, **(arrays or {"image": np.zeros((1, 1, 1, 8, 8))}))
    out = tmp_path / "out.npz"
    line = fails(
        capsys, "simulate", folder, "--input", source, "--output", out, "--engine", "golden"
    )
    assert not out.exists()
    return line


@pytest.mark.parametrize(
    "arrays",
    [
        {"picture": np.zeros((1, 1, 1, 8, 8))},
        {"image": np.zeros((1, 8, 8))},
        {"image": np.full((1, 1, 1, 8, 8), "x")},
        {"image": np.full((1, 1, 1, 8, 8), np.inf)},
    ],
    ids=["name", "shape", "type", "infinite"],
)
def test_inputs_of_a_simulation(capsys, tmp_path, digits, arrays):
    simulate_fails(capsys, tmp_path, digits, arrays)


def test_damaged_programs(capsys, tmp_path, digits):
    assert "no compiled model" in simulate_fails(capsys, tmp_path, tmp_path / "nowhere")
    folder = tmp_path / "copy"
    shutil.copytree(digits, folder)
    program = folder / "program.bin"
    content = program.read_bytes()
    for damaged, word in (
        (content[:-5], "truncated"),
        (content[:500] + bytes([content[500] ^ 4]) + content[501:], "damaged"),
        (content[:4] + b"\x09" + content[5:], "version 9"),
        (b"", "not a gateformer"),
    ):
        program.write_bytes(damaged)
        assert word in simulate_fails(capsys, tmp_path, folder)
    program.write_bytes(content)
    (folder / "config.json").write_text(SMALL.replace(name="x", a_depth=128).to_json())
    assert "compile it again" in simulate_fails(capsys, tmp_path, folder)


def test_unknown_words_on_the_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["simulate"])
    assert stop.value.code == 2
    assert "required" in capsys.readouterr().err
    assert "huge" in fails(capsys, "configs", "--show", "huge")
