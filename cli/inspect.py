"""`gateformer inspect`: what becomes of every node of a model."""

import argparse
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateformer.cli.options import add_shape
from gateformer.spec.configs import find_config


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="show which engine runs each node of an ONNX file",
        description="Shows for every node of a model which engine runs it, or the host, or why "
        "nothing can, with multiply-accumulates and bytes. The exit code is 0 also for a model "
        'that does not compile; its answer in JSON then has "supported": false.',
        epilog="example: gateformer inspect examples/digits/digits.onnx --config ecp5-85k",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model")
    parser.add_argument(
        "--config", metavar="NAME|FILE.toml", help="also tell whether it fits this config"
    )
    add_shape(parser)
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    from gateformer.compiler.importer import import_model
    from gateformer.compiler.inspection import inspect
    from gateformer.compiler.inspection_limits import limits

    config = find_config(arguments.config) if arguments.config else None
    # A pipe or a file has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 160)
    with console.status("inspecting"):
        inspection = inspect(import_model(arguments.model, dict(arguments.shape)))
    table = Table(title=str(arguments.model), show_footer=True)
    totals = inspection.totals
    table.add_column("node", "total", overflow="fold")
    table.add_column("operator", no_wrap=True)
    table.add_column("runs on", no_wrap=True)
    table.add_column("", overflow="fold")
    for title, total in (
        ("MACs", totals.macs),
        ("weight bytes", totals.weight_bytes),
        ("result bytes", totals.activation_bytes),
    ):
        table.add_column(title, f"{total:,}", justify="right", no_wrap=True)
    absorbed: Counter[tuple[str, str]] = Counter()
    for report in inspection.nodes:
        if report.place == "constant":
            absorbed[report.operator, report.reason] += 1
            continue
        style = "red" if report.place == "none" else None
        numbers = (report.macs, report.weight_bytes, report.activation_bytes)
        cells = [f"{number:,}" if number else "" for number in numbers]
        table.add_row(
            report.node, report.operator, report.place, report.reason, *cells, style=style
        )
    for (operator, reason), count in absorbed.items():
        table.add_row(f"{count} nodes", operator, "constant", reason)
    console.print(table)
    answer: dict[str, Any] = {"supported": inspection.supported}
    for node, reason in inspection.refusals.items():
        console.print(f"no engine can do {node}: {reason}" if node else reason, style="red")
    taken, given = inspection.scales
    if given:
        console.print(f"{taken} of {given} scales of activations in the file are used")
        answer["scales"] = {"used": taken, "given": given}
    if config is not None and inspection.graph is not None:
        found = limits(inspection.graph, config)
        answer["fits"] = inspection.supported and all(limit.fits for limit in found)
        for limit in found:
            word = "fits" if limit.fits else "does not fit"
            sizes = f"{limit.needs:,} of {limit.has:,}"
            note = f"; {limit.note}" if limit.note else ""
            console.print(f"{config.name}: {limit.resource} {sizes}: {word}{note}")
        answer["limits"] = [asdict(limit) for limit in found]
    console.print(
        "every node has a place" if inspection.supported else "this model does not compile"
    )
    names = ("macs", "weight_bytes", "activation_bytes")
    return {
        **answer,
        "totals": {name: getattr(totals, name) for name in names},
        "refusals": [
            {"node": node, "reason": reason} for node, reason in inspection.refusals.items()
        ],
        "nodes": [asdict(report) for report in inspection.nodes],
    }
