"""`gateformer disassemble`: a compiled program as text."""

import argparse
from typing import Any

from gateformer.cli.options import add_model


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "disassemble",
        help="print a compiled program, one instruction a line",
        description="Prints the instructions of a compiled model. docs/isa.md explains them.",
        epilog="example: gateformer disassemble build/digits",
    )
    add_model(parser)
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from gateformer.compiler.disassemble import disassemble_instructions
    from gateformer.compiler.folder import CompiledModel

    image = CompiledModel.load(arguments.model).image
    lines = list(disassemble_instructions(image.instructions))
    for line in lines:
        print(line)
    return {"instructions": len(lines), "lines": lines}
