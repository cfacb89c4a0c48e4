"""The frame of the command line: errors, exit codes, answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateformer.cli import configs
from gateformer.cli.main import COMMANDS, main


def _exit_code(*arguments: str) -> int:
    """Exit code of a command line, whether main returns it or argparse exits."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.split(".")[-1])
def test_every_command_has_help_with_an_example(command, capsys) -> None:
    name = command.__name__.split(".")[-1]
    assert _exit_code(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"example: gateformer {name}" in text
    assert "--json FILE" in text


def test_help_and_version(capsys) -> None:
    assert _exit_code("--help") == 0
    assert "example: gateformer" in capsys.readouterr().out
    assert _exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("gateformer 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("configs", "--nonsense"),
        ("configs", "--show", "nonsense"),
        ("configs", "--show", "missing.toml"),
        ("configs", "--json", "missing/folder/answer.json"),
        ("configs", "--json", "."),
        ("verilog", "--config", "tiny"),
        ("verilog", "--config", "nonsense", "-o", "core.v"),
        ("verilog", "--config", "tiny", "-o", "core.json"),
        ("verilog", "--config", "tiny", "-o", "missing/core.v"),
        ("synth", "--config", "tiny", "--device", "nonsense"),
        ("synth", "--config", "tiny", "--device", "ice40-up5k", "--seeds", "0"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_code_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _exit_code(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gateformer: error: ")
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_answer_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "run", lambda arguments: pytest.fail("it ran"))
    assert _exit_code("configs", "--json", str(tmp_path / "missing" / "answer.json")) == 2


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupt(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(configs, "run", interrupt)
    assert main(["configs"]) == 130
    assert capsys.readouterr().err == ""


def test_reader_that_leaves_early() -> None:
    command = f"{sys.executable} -m gateformer.cli.main configs --show tiny | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_answer_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text("old")
    assert main(["configs", "--json", str(answer)]) == 0
    assert "configs" in json.loads(answer.read_text())
    assert list(tmp_path.iterdir()) == [answer]
