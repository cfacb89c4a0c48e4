"""The command around the synthesis; the synthesis itself is tested in tests/boards."""

import json
from pathlib import Path

import pytest

from gateformer.boards.synth import Device, SynthesisReport
from gateformer.cli import synth
from gateformer.cli.main import main
from gateformer.spec.configs import SMALL


def test_answer_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    asked = {}

    def synthesize(verilog: str, device: Device, **options) -> SynthesisReport:
        asked.update(options, verilog=verilog)
        return SynthesisReport(
            device=device.name, macs=options["macs"], lut4=100, ccu2c=20, fmax_mhz=[130.5, 128.25]
        )

    monkeypatch.setattr(synth, "synthesize", synthesize)
    monkeypatch.chdir(tmp_path)
    arguments = "synth --config small --device ice40-up5k --pnr --seeds 2 --json answer.json"
    assert main(arguments.split()) == 0
    answer = json.loads(Path("answer.json").read_text())
    assert {"macs", "lut4", "ccu2c", "lut_eq", "ff", "dsp", "bram", "fmax_mhz"} < set(answer)
    assert answer["macs"] == SMALL.macs
    assert answer["lut_eq"] == 140
    assert answer["fmax_mhz"] == [130.5, 128.25]
    assert (asked["pnr"], asked["seeds"]) == (True, 2)
    assert "family ice40" in asked["verilog"].splitlines()[0]
    assert "lut_eq" in capsys.readouterr().out
