"""The roofline: its picture, and files that are no result of the benchmark."""

import json
from pathlib import Path

import pytest

from gateformer.examples.bench import roofline
from gateformer.spec.configs import ECP5_85K

ROW = {
    "work": "a model", "config": "ecp5-85k", "model_macs": 1000, "cycles": 10, "dram_bytes": 50,
}  # fmt: skip


def test_bandwidth_is_less_than_the_bus() -> None:
    """Row misses and refresh take some of it, but less than 7 %."""
    assert 0.93 * ECP5_85K.bus_bytes < roofline.bandwidth(ECP5_85K) < ECP5_85K.bus_bytes


def test_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"rows": [ROW]}))
    picture = tmp_path / "r.png"
    assert roofline.main(["--bench", str(tmp_path / "bench.json"), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "ecp5-85k" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [{}]}'])
def test_bad_results(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    assert roofline.main(["--bench", str(path), "-o", str(tmp_path / "r.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "r.png").exists()
    assert roofline.main(["--bench", str(tmp_path / "none.json")]) == 2
