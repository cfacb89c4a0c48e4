"""Prints a component as plain Verilog."""

import re

from amaranth.back import verilog
from amaranth.lib.wiring import Component

_ZERO_FILL = re.compile(
    r"^ *initial begin\n(?:^ *\S+\[\d+\] = \d+'[bh]0+;\n)+^ *end\n", re.MULTILINE
)


def to_verilog(component: Component, *, name: str) -> str:
    """The Verilog of a component with its signature as ports; the same component, the same text.

    Memories that start as zeros are printed without initial contents: Yosys reads those lines in
    quadratic time, and no unit reads a word that it has not written.
    """
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return _ZERO_FILL.sub("", text)
