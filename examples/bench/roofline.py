"""The roofline of every named config (Williams, Waterman and Patterson 2009), and the benchmark's
works under it.

    python -m gateformer.examples.bench.roofline [--bench build/bench.json] [-o roofline.png]

A config computes at most rows * cols * lanes products a cycle, and at most as many as the bytes
allow that its memory brings: the work's products for each byte, times the bytes a cycle. Prints
peak, bandwidth and the ridge, where the two meet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Column, Table

from gateformer.cli.files import require_writable, write_bytes
from gateformer.compiler.bound import transfer_cycles
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import NAMED
from gateformer.spec.dram import SDRAM
from gateformer.spec.errors import GateformerError

LONG = 1 << 20
"""Bytes of a transfer that shows what the memory sustains."""
INTENSITIES = np.geomspace(1, 4096, 200)
"""Products for each byte that are drawn."""
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def bandwidth(config: AcceleratorConfig) -> float:
    """Bytes a cycle that external memory sustains, with its row misses and refresh."""
    return LONG / transfer_cycles(config, LONG, SDRAM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 2 for what cannot be read or written."""
    parser = argparse.ArgumentParser(description="the roofline of every named config")
    parser.add_argument("--bench", type=Path, help="draw these works: what the benchmark wrote")
    parser.add_argument("-o", dest="output", type=Path, help="draw a PNG")
    options = parser.parse_args(arguments)
    try:
        rows = _rows(options.bench) if options.bench else []
        if options.output:
            require_writable(options.output)
            write_bytes(options.output, lambda file: draw(rows, file))
    except GateformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    titles = ("products a cycle", "bus bytes", "sustained bytes a cycle", "ridge: products a byte")
    table = Table("config", *(Column(title, justify="right") for title in titles))
    for name, config in NAMED.items():
        if config.dram != "none":
            given = bandwidth(config)
            ridge = f"{config.macs / given:.1f}"
            table.add_row(name, str(config.macs), str(config.bus_bytes), f"{given:.3f}", ridge)
    Console().print(table)
    return 0


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows that the benchmark wrote. Raises GateformerError for another file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            row["intensity"] = row["model_macs"] / row["dram_bytes"]
            row["speed"] = row["model_macs"] / row["cycles"]
    except OSError as error:
        raise GateformerError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise GateformerError(f"{path} is no result of the benchmark: run it again") from None
    return rows


def draw(rows: Sequence[dict[str, Any]], file: IO[bytes]) -> None:
    """Writes a PNG: a roof for each config, a point for each work."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = dict(zip(NAMED, COLORS, strict=False))
    for name, config in NAMED.items():
        if config.dram != "none":
            roof = np.minimum(config.macs, INTENSITIES * bandwidth(config))
            axes.loglog(INTENSITIES, roof, color=colors.get(name), label=f"{name}, {config.macs}")
    for row in rows:
        place = (row["intensity"], row["speed"])
        axes.plot(*place, "o", color=colors.get(row["config"], "black"))
        axes.annotate(row["work"], place, xytext=(4, -9), textcoords="offset points", fontsize=7)
    axes.set_xlabel("products for each byte of external memory")
    axes.set_ylabel("products a cycle")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="config, peak", loc="lower right")
    figure.savefig(file, format="png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
