"""The command line: finds the command, writes its answer, turns errors into one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from gateformer.cli import (
    compile,
    configs,
    demo,
    disassemble,
    inspect,
    profile,
    quality,
    simulate,
    synth,
    verilog,
)
from gateformer.cli.files import require_writable, write_json
from gateformer.spec.errors import GateformerError

COMMANDS = (
    demo,
    inspect,
    compile,
    simulate,
    profile,
    quality,
    disassemble,
    verilog,
    synth,
    configs,
)
"""Modules with `add_parser(subparsers)`, which returns the command's parser, and `run(arguments)`,
which returns the answer that `--json` writes."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as every other error: in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gateformer: error: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    """The parser of all commands; parsed arguments carry the command's `run`."""
    top = Parser(
        prog="gateformer",
        description="Generates transformer accelerators for open FPGA boards.",
        epilog="example: gateformer verilog --config ecp5-85k -o accelerator.v",
    )
    top.add_argument("--version", action="version", version=f"gateformer {version('gateformer')}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = command.add_parser(subparsers)
        subparser.add_argument(
            "--json", type=Path, metavar="FILE", help="also write the answer as JSON"
        )
        subparser.set_defaults(run=command.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        if options.json:
            require_writable(options.json)
        answer = options.run(options)
        if options.json:
            write_json(options.json, answer)
        sys.stdout.flush()
    except GateformerError as error:
        print(f"gateformer: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; spare it the error at exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
