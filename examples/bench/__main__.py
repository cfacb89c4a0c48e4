"""How busy well-known transformers keep the array, and how fast the tools are.

    python -m gateformer.examples.bench [--only NAME ...] [--json F]

Every row is compiled, simulated on the generated Verilog with an SDR SDRAM at 2 bytes a cycle, and
compared with the golden model. Prints a table; the file holds the same as `rows` and `tools`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from gateformer.cli.files import make_folder, require_writable, write_json
from gateformer.examples.bench.measure import Row, Tool, measure, tools
from gateformer.examples.bench.works import WORKS
from gateformer.spec.errors import GateformerError, RunError

TOOLS = "tools"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 2 for what cannot be written or differs from the golden model."""
    names = [*(work.name for work in WORKS), TOOLS]
    parser = argparse.ArgumentParser(description="how busy transformers keep the array")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these rows alone")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="the figures")
    options = parser.parse_args(arguments)
    # A pipe or a file has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        make_folder(options.json.parent)
        require_writable(options.json)
        rows, speeds = _measure(console, options.only)
        _print(console, rows, speeds)
        record = {
            "rows": [row.as_dict() for row in rows],
            "tools": {tool.name: tool.value for tool in speeds},
        }
        write_json(options.json, record)
    except GateformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"figures in {options.json}")
    return 0


def _measure(console: Console, names: Sequence[str]) -> tuple[list[Row], list[Tool]]:
    """The rows and tools of these names; a work that cannot run here is left out with a line."""
    rows: list[Row] = []
    speeds: list[Tool] = []
    with console.status("") as status:
        for work in WORKS:
            if work.name not in names:
                continue
            try:
                rows.append(measure(work, status.update))
            except RunError:
                raise
            except GateformerError as error:
                console.print(f"{work.name} is left out: {error}")
        if TOOLS in names:
            speeds.extend(tools(status.update))
    return rows, speeds


def _print(console: Console, rows: Sequence[Row], speeds: Sequence[Tool]) -> None:
    if rows:
        numbers = ("MACs", "cycles", "busy", "bound", "goal", "met", "cycle model")
        columns = (Column(title, justify="right") for title in numbers)
        table = Table("work", "config", *columns, title="how busy the array is")
        for row in rows:
            table.add_row(
                row.work,
                ", ".join([row.config, *(f"{k} {v}" for k, v in row.changes.items())]),
                f"{row.model_macs:,}",
                f"{row.cycles:,}",
                f"{100 * row.utilization:.2f} %",
                f"{100 * row.bound:.2f} %",
                f"{100 * row.goal:.2f} %",
                _yes(row.met),
                f"{100 * (row.model_cycles / row.cycles - 1):+.2f} %",
            )
        console.print(table)
    if speeds:
        table = Table("tool", *(Column(t, justify="right") for t in ("figure", "goal", "met")))
        for tool in speeds:
            table.add_row(tool.name, f"{tool.value:,.1f}", f"{tool.goal:,}", _yes(tool.met))
        console.print(table)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    sys.exit(main())
