"""compile, simulate, disassemble and demo: what they print and what their JSON holds."""

import json

import numpy as np
import pytest
from configs import ONE_PORT

from gateformer.cli.main import main
from gateformer.examples.digits.data import load_split
from gateformer.examples.digits.demo import CALIBRATION, EXPECTED, MODEL


def run(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the one-port config, the compiled digits model and five test images."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "c.toml").write_text(ONE_PORT.to_toml())
    images = load_split().test_images[:5]
    np.savez(folder / "in.npz", image=images[:, None])
    command = ["compile", MODEL, "--calibration", CALIBRATION, "--config", folder / "c.toml"]
    run(*command, "--verify", "-o", folder / "digits", "--json", folder / "compile.json")
    return folder


def test_compile(work):
    answer = json.loads((work / "compile.json").read_text())
    assert set(answer) == {
        "model_macs", "instructions", "weight_bytes", "host_ops", "predicted_cycles",
    }  # fmt: skip
    assert answer["weight_bytes"] < 64 * 1024
    assert answer["host_ops"][0]["operator"] == "Conv"
    assert {path.name for path in (work / "digits").iterdir()} == {
        "program.bin", "host_before.onnx", "host_after.onnx", "config.json", "model.json",
        "layers.json", "quantized.npz", "source",
    }  # fmt: skip


def test_compile_is_deterministic(work, tmp_path):
    command = ["compile", MODEL, "--calibration", CALIBRATION, "--config", work / "c.toml"]
    run(*command, "-o", tmp_path / "again")
    for path in (work / "digits").rglob("*.*"):
        again = tmp_path / "again" / path.relative_to(work / "digits")
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", ["import", "lower", "quantize", "plan", "schedule", "encode"])
def test_stop_after(work, tmp_path, capsys, name):
    command = ["compile", MODEL, "--calibration", CALIBRATION, "--config", work / "c.toml"]
    run(*command, "-o", tmp_path / "none", "--stop-after", name)
    assert len(capsys.readouterr().out.splitlines()) > 20
    assert not (tmp_path / "none").exists()


def test_disassemble(work, capsys):
    run("disassemble", work / "digits")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[1] == "HALT"
    assert any("GEMM" in line and "epilogue_wait=" in line for line in lines)


def test_simulate(work):
    for engine in ("golden", "rtl"):
        run(
            "simulate", work / "digits", "--input", work / "in.npz",
            "--output", work / f"{engine}.npz", "--engine", engine,
            "--json", work / f"{engine}.json",
        )  # fmt: skip
    answer = json.loads((work / "rtl.json").read_text())
    assert answer["bit_exact"] is True
    assert answer["samples"] == len(answer["cycles"]) == 5
    share = answer["macs"] / (ONE_PORT.macs * sum(answer["cycles"]))
    assert answer["utilization"] == pytest.approx(share)
    assert {"busy", "wait_a", "wait_b", "wait_drain"} <= set(answer["stalls"]["array"])
    predicted = json.loads((work / "compile.json").read_text())["predicted_cycles"]
    assert predicted == pytest.approx(answer["cycles"][0], rel=0.25)
    with np.load(work / "golden.npz") as golden, np.load(work / "rtl.npz") as rtl:
        assert np.array_equal(golden["logits"], rtl["logits"])
        with np.load(EXPECTED) as expected:
            assert rtl["logits"].shape == (5, 1, 10)
            assert np.abs(rtl["logits"][:, 0] - expected["logits"][:5]).max() < 0.5


def test_demo(work, capsys):
    run(
        "demo", "--images", "3", "--config", work / "c.toml", "-o", work / "demo",
        "--json", work / "demo.json",
    )  # fmt: skip
    answer = json.loads((work / "demo.json").read_text())
    assert answer["images"] == answer["correct"] == 3
    assert answer["bit_exact"] is True
    assert answer["float_accuracy"] >= 0.97
    assert abs(answer["golden_accuracy"] - answer["float_accuracy"]) <= 0.005
    assert answer["rtl_accuracy"] == 1.0
    assert 0 < answer["utilization"] < 1
    assert (work / "demo" / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert "module accelerator" in (work / "demo" / "one-port.v").read_text()
    assert "image   3: label" in capsys.readouterr().out


def test_trace(work):
    """An FST file: its first block is a header of 329 bytes (GTKWave's format)."""
    np.savez(work / "one.npz", image=load_split().test_images[:1, None])
    run(
        "simulate", work / "digits", "--input", work / "one.npz", "--output", work / "t.npz",
        "--trace", work / "t.fst",
    )  # fmt: skip
    content = (work / "t.fst").read_bytes()
    assert content[0] == 0
    assert int.from_bytes(content[1:9], "big") == 329
