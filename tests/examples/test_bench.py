"""The benchmark: its rows, its file, and what it leaves out."""

import json
from functools import partial
from pathlib import Path

import pytest
from configs import ONE_PORT

from gateformer.examples.bench import __main__ as bench
from gateformer.examples.bench import measure, models, works
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import GateformerError


def tiny(layers: int) -> object:
    return models.post_norm_encoder(layers=layers, tokens=9, dim=16, heads=2, hidden=24)


def missing(config: AcceleratorConfig, folder: Path) -> works.Prepared:
    raise GateformerError("its weights are not installed")


def test_bench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(ONE_PORT.to_toml())
    monkeypatch.setattr(works, "MODELS", {"tiny": tiny})
    rows = (
        works.Work("one", "tiny", str(config), 0.99, partial(works.random_weights, "tiny", 1)),
        works.Work(
            "two", "bound", str(config), 0.5, partial(works.random_weights, "tiny", 1), True
        ),
        works.Work("three", "missing", str(config), 0.5, missing),
    )
    monkeypatch.setattr(bench, "WORKS", rows)
    tool = measure.Tool("speed", 7.0, 5, least=True)
    monkeypatch.setattr(bench, "tools", lambda note: iter([tool]))
    path = tmp_path / "new" / "bench.json"
    assert bench.main(["--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "three is left out: its weights are not installed" in printed
    record = json.loads(path.read_text())
    assert record["tools"] == {"speed": 7.0}
    assert [row["work"] for row in record["rows"]] == ["tiny", "bound"]
    row = record["rows"][0]
    assert {"config", "model_macs", "cycles", "bound", "model_cycles"} <= set(row)
    assert 0 < row["utilization"] <= row["bound"] <= 1
    assert row["utilization"] == row["model_macs"] / (ONE_PORT.macs * row["cycles"])
    assert row["goal"] == 0.99
    assert record["rows"][1]["goal"] == 0.5 * record["rows"][1]["bound"]


def test_bad_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--only", "tools", "--json", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_work_has_its_own_name() -> None:
    names = [work.name for work in works.WORKS]
    assert len(set(names)) == len(names)
    assert bench.TOOLS not in names
