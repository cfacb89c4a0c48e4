"""`gateformer verilog`: the accelerator of a config as Verilog."""

import argparse
from pathlib import Path
from typing import Any

from gateformer.cli.files import require_writable, write_json, write_text
from gateformer.cli.options import add_config
from gateformer.spec.config import FAMILIES
from gateformer.spec.configs import find_config
from gateformer.spec.errors import GateformerError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "verilog",
        help="write the accelerator as Verilog",
        description="Writes the accelerator of a config as one Verilog file and, beside it, its "
        "config, ports, parameters and versions as FILE.json. The same config gives the same "
        "bytes.",
        epilog="example: gateformer verilog --config small --family generic -o accelerator.v",
    )
    add_config(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.v", help="the Verilog file"
    )
    parser.add_argument(
        "--family",
        choices=FAMILIES,
        help="FPGA family whose primitives are used; left out, the config's; generic uses none, "
        "which is what a simulator wants",
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from gateformer.hw.generate import accelerator_verilog

    config = find_config(arguments.config)
    if arguments.family:
        config = config.replace(family=arguments.family)
    beside = arguments.output.with_suffix(".json")
    if beside == arguments.output:
        raise GateformerError(f"-o {beside}: the description goes there, name the Verilog FILE.v")
    require_writable(arguments.output)
    require_writable(beside)
    text, description = accelerator_verilog(config)
    write_text(arguments.output, text)
    write_json(beside, description)
    print(f"{arguments.output}: {text.count(chr(10)):,} lines; {beside}: its description")
    return description
