"""profile: its JSON, its trace and its picture; what it refuses."""

import json
import shutil

import numpy as np
import pytest
from configs import ONE_PORT

from gateformer.cli.main import main
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.timeline import Reason
from gateformer.examples.digits.data import load_split
from gateformer.examples.digits.demo import CALIBRATION, MODEL
from gateformer.spec.isa import FORMATS, Engine


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the compiled digits model, an image, and profiles by both engines."""
    folder = tmp_path_factory.mktemp("profile")
    (folder / "c.toml").write_text(ONE_PORT.to_toml())
    np.savez(folder / "in.npz", image=load_split().test_images[:1, None])
    command = ("compile", MODEL, "--calibration", CALIBRATION, "--config", folder / "c.toml")
    assert run(*command, "-o", folder / "digits") == 0
    for engine in ("rtl", "model"):
        out = folder / engine
        command = ("profile", folder / "digits", "--input", folder / "in.npz", "--engine", engine)
        assert run(*command, "--out", out, "--json", folder / f"{engine}.json") == 0
    return folder


@pytest.mark.parametrize("engine", ["rtl", "model"])
def test_every_cycle_is_told(work, engine):
    """A layer's cycles are its work and its waits; the layers' are the run's but for its end."""
    answer = json.loads((work / f"{engine}.json").read_text())
    model = CompiledModel.load(work / "digits")
    assert answer["model_macs"] == model.image.model_macs
    assert sum(layer["macs"] for layer in answer["layers"]) == answer["model_macs"]
    share = answer["model_macs"] / (ONE_PORT.macs * answer["cycles"])
    assert answer["utilization"] == pytest.approx(share)
    assert answer["utilization"] < answer["bound"]["utilization"] <= 1
    tail = answer["cycles"] - sum(layer["cycles"] for layer in answer["layers"])
    assert 0 < tail < 0.1 * answer["cycles"]
    for layer in answer["layers"]:
        if "ARRAY" in layer["engines"]:
            array = layer["engines"]["ARRAY"]
            told = array["busy_cycles"] + sum(array["waiting_cycles"].values())
            assert told == layer["cycles"]
    for name, part in answer["engines"].items():
        assert set(part["waiting_cycles"]) == {reason.value for reason in Reason}
        told = part["busy_cycles"] + sum(part["waiting_cycles"].values())
        assert 0 < told <= answer["cycles"], name
        for layer in answer["layers"]:
            assert layer["engines"].get(name, part)["busy_cycles"] <= part["busy_cycles"]
    data = sum(layer["dram_bytes"] for layer in answer["layers"])
    assert 0 < data <= answer["dram"]["bytes"] < 2 * data


@pytest.mark.parametrize("engine", ["rtl", "model"])
def test_trace(work, engine):
    """One slice for each instruction and engine; those of a track follow each other."""
    events = json.loads((work / engine / "trace.json").read_text())["traceEvents"]
    answer = json.loads((work / f"{engine}.json").read_text())
    model = CompiledModel.load(work / "digits")
    tracks = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert set(tracks) == {engine.name for engine in Engine}
    layers = {layer["name"] for layer in answer["layers"]} | {"end"}
    for e in Engine:
        slices = [x for x in events if x["ph"] == "X" and x["tid"] == tracks[e.name]]
        expected = [i for i in model.image.instructions if e in FORMATS[i.opcode].engines]
        assert [x["cat"] for x in slices] == [i.opcode.name for i in expected]
        assert {x["args"]["layer"] for x in slices} <= layers
        ends = [x["ts"] + x["dur"] for x in slices]
        assert all(a <= x["ts"] for a, x in zip(ends, slices[1:], strict=False))
        assert ends[-1] <= answer["cycles"]
    moved = [x["args"]["bytes"] for x in events if x["ph"] == "C"]
    assert moved
    assert 0 <= min(moved) <= max(moved) <= ONE_PORT.bus_bytes


def test_picture(work):
    assert (work / "rtl" / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_printed_tables(work, capsys):
    command = ("profile", work / "digits", "--input", work / "in.npz", "--engine", "model")
    assert run(*command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("EPILOGUE" in line and "ARRAY" in line for line in lines)
    assert any("the bound is" in line for line in lines)


def test_refusals(work, tmp_path, capsys):
    def fails(*arguments):
        capsys.readouterr()
        assert run("profile", *arguments, "--engine", "model", "--json", tmp_path / "x.json") == 2
        assert not (tmp_path / "x.json").exists()
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    shutil.copytree(work / "digits", tmp_path / "old")
    (tmp_path / "old" / "layers.json").unlink()
    sample = ("--input", work / "in.npz")
    assert "compile it again" in fails(tmp_path / "old", *sample)
    for content in ("{", '{"names": [], "kinds": [], "owners": [1]}'):
        (tmp_path / "old" / "layers.json").write_text(content)
        assert "layers.json" in fails(tmp_path / "old", *sample)
    assert "none" in fails(tmp_path / "none", *sample)
    assert "none.npz" in fails(work / "digits", "--input", tmp_path / "none.npz")
    (tmp_path / "file").write_text("")
    assert "file" in fails(work / "digits", *sample, "--out", tmp_path / "file")
