"""The accelerator of a config as one Verilog file and its description."""

from importlib.metadata import version
from typing import Any

from gateformer.hw.accelerator import Accelerator
from gateformer.hw.verilog import describe, to_verilog
from gateformer.spec.config import AcceleratorConfig

TOP = "accelerator"
"""Name of the top module."""

_HEADER = """\
// gateformer {version}: config {config.name} ({config.hash:#010x}), family {config.family}
// This file was generated; it belongs to whoever generated it.
"""


def accelerator_verilog(config: AcceleratorConfig) -> tuple[str, dict[str, Any]]:
    """The Verilog of module `accelerator` and its description, see :func:`describe`.

    The same config, the same bytes. A config of family "generic" instantiates no primitives, so
    that a simulator needs no more than this file. Raises ToolError when Amaranth's Yosys fails.
    """
    accelerator = Accelerator(config)
    header = _HEADER.format(version=version("gateformer"), config=config)
    text = header + to_verilog(accelerator, name=TOP)
    return text, describe(accelerator, config, name=TOP)
