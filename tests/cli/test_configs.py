import json
from pathlib import Path

from gateformer.cli.main import main
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import NAMED, SMALL


def test_lists_every_config(tmp_path: Path, capsys) -> None:
    assert main(["configs", "--json", str(tmp_path / "answer.json")]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMED)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert [AcceleratorConfig.from_dict(c) for c in answer["configs"]] == list(NAMED.values())


def test_shown_config_reads_back(tmp_path: Path, capsys) -> None:
    assert main(["configs", "--show", "small"]) == 0
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out)
    assert AcceleratorConfig.load(file) == SMALL
