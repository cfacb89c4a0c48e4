"""The launcher compiles runtime files once and everything else as asked."""

import os
from pathlib import Path

import pytest

from gateformer.sim import object_cache

COMPILER = """#!/bin/sh
echo run >> "$COUNT"
while [ "$1" != -o ]; do shift; done
echo object > "$2"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a compiler that counts its runs, and a runtime of one file."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "verilated_config.h").write_text("version 1")
    (include / "verilated.cpp").write_text("")
    compiler = tmp_path / "c++"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    monkeypatch.setenv("VERILATOR_ROOT", str(tmp_path))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _compile(tools: Path, source: str, *flags: str) -> int:
    """Compiles and returns how often the compiler has run so far."""
    Path("out.o").unlink(missing_ok=True)
    command = [str(tools / "c++"), *flags, "-c", "-o", "out.o", source]
    assert object_cache.main(tools / "cache", command) == 0
    assert Path("out.o").read_text() == "object\n"
    return (tools / "count").read_text().count("run")


def test_runtime_is_compiled_once_for_each_set_of_flags_and_version(tools: Path) -> None:
    runtime = str(tools / "include" / "verilated.cpp")
    assert _compile(tools, runtime) == 1
    assert _compile(tools, runtime) == 1
    assert _compile(tools, runtime, "-O2") == 2
    (tools / "include" / "verilated_config.h").write_text("version 2")
    assert _compile(tools, runtime) == 3


def test_other_files_are_compiled_every_time(tools: Path) -> None:
    (tools / "model.cpp").write_text("")
    assert _compile(tools, "model.cpp") == 1
    assert _compile(tools, "model.cpp") == 2
    assert not (tools / "cache").exists()


def test_failure_leaves_no_object(tools: Path) -> None:
    (tools / "c++").write_text("#!/bin/sh\nexit 3\n")
    runtime = str(tools / "include" / "verilated.cpp")
    command = [str(tools / "c++"), "-c", "-o", "out.o", runtime]
    assert object_cache.main(tools / "cache", command) == 3
    assert not any(name.endswith(".o") for name in os.listdir(tools / "cache"))
