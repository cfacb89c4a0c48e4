"""The options of quantization: read, recorded in model.json, refused where they make no sense."""

import json
from pathlib import Path

import pytest

from gateformer.cli.main import main
from gateformer.examples.digits.demo import CALIBRATION, MODEL

COMMAND = ["compile", str(MODEL), "--calibration", str(CALIBRATION), "--config", "ecp5-85k"]


def test_options_are_recorded(tmp_path: Path) -> None:
    given = "--estimator percentile --percentile 99.9 --smoothing off --no-centering"
    more = "--no-zero-points --weights tensor --residual-bits 12 --scores-headroom 1.5"
    folder = tmp_path / "digits"
    assert main([*COMMAND, *given.split(), *more.split(), "-o", str(folder)]) == 0
    assert json.loads((folder / "model.json").read_text())["quantization"] == {
        "estimator": "percentile",
        "percentile": 99.9,
        "smoothing": None,
        "centering": False,
        "zero_points": False,
        "weights": "tensor",
        "residual_bits": 12,
        "stream_headroom": 1.25,
        "scores_headroom": 1.5,
        "output_headroom": 1.5,
    }


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--smoothing", "2", "smoothing is 2.0: it must be from 0 to 1"),
        ("--percentile", "10", "percentile is 10.0"),
        ("--residual-bits", "20", "residual_bits is 20"),
    ],
)
def test_senseless_values(
    option: str, value: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, option, value, "-o", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*COMMAND, "--smoothing", "much", "-o", str(tmp_path / "none")])
    assert stopped.value.code == 2
    assert "'much' is neither a number nor off" in capsys.readouterr().err
