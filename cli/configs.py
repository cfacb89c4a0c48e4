"""`gateformer configs`: the named configs."""

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from gateformer.spec.configs import NAMED, find_config


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "configs",
        help="list the named configs, or print one as TOML",
        description="Lists the named configs. With --show, prints one as TOML, as a start for "
        "your own.",
        epilog="example: gateformer configs --show small > mine.toml",
    )
    parser.add_argument("--show", metavar="NAME|FILE.toml", help="print this config as TOML")
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.show:
        config = find_config(arguments.show)
        print(config.to_toml(), end="")
        return {"configs": [config.as_dict()]}
    table = Table()
    for name in ("name", "rows", "cols", "lanes", "MACs", "local KiB", "memory ports", "family"):
        table.add_column(name, justify="left" if name in ("name", "family") else "right")
    for c in NAMED.values():
        numbers = (c.rows, c.cols, c.lanes, c.macs, c.local_kib, c.memory_ports)
        table.add_row(c.name, *map(str, numbers), c.family)
    Console().print(table)
    return {"configs": [config.as_dict() for config in NAMED.values()]}
