"""Prepares the tests: helpers that lie beside test modules, and YoWASP's tools."""

import subprocess
import sys
from pathlib import Path

import pytest

for folder in ("compiler", "hw", "sim", "spec", "cli"):
    sys.path.insert(0, str(Path(__file__).parent / folder))


def pytest_configure(config: pytest.Config) -> None:
    """Runs each tool once before the workers start: at its first call a tool compiles itself into
    a cache, and two that write it at once disturb each other."""
    if hasattr(config, "workerinput"):
        return
    for tool in ("yosys", "nextpnr_ecp5", "nextpnr_ice40"):
        call = f"import sys, yowasp_{tool} as p; sys.exit(p.run_{tool}(['--version']))"
        subprocess.run([sys.executable, "-c", call], check=True, capture_output=True)
