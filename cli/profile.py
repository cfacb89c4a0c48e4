"""`gateformer profile`: what every layer and every engine takes, and what they wait for."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gateformer.cli.files import make_folder, require_writable, write_bytes, write_text
from gateformer.cli.options import add_model, add_samples

TRACE = "trace.json"
PICTURE = "timeline.png"
SHOWN = 20
"""Layers in the printed table."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "profile",
        help="show where a compiled model's cycles go",
        description="Runs the first batch of an .npz file and prints how long every engine and "
        "every layer works and what it waits for. With --engine rtl (the default) the generated "
        "Verilog runs in Verilator; with --engine model the cycle model predicts it at once. "
        f"--out keeps {TRACE}, which Perfetto and chrome://tracing open, and {PICTURE}.",
        epilog="example: gateformer profile build/digits --input in.npz --out build/profile",
    )
    add_model(parser)
    add_samples(parser)
    parser.add_argument("--engine", choices=("rtl", "model"), default="rtl", help="what runs")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"write {TRACE} and {PICTURE} here"
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from gateformer.compiler.folder import CompiledModel
    from gateformer.compiler.samples import load_samples, split_samples
    from gateformer.sim.profile import profile_model
    from gateformer.sim.profile_plot import draw
    from gateformer.sim.profile_trace import trace

    model = CompiledModel.load(arguments.model)
    samples = split_samples(load_samples(arguments.input, model.host().inputs))
    if arguments.out is not None:
        make_folder(arguments.out)
        for name in (TRACE, PICTURE):
            require_writable(arguments.out / name)
    # A pipe or a file has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 160)
    with console.status("profiling") as status:

        def note(text: str) -> None:
            status.update(f"profiling: {text}")

        profile = profile_model(model, samples, engine=arguments.engine, progress=note)
    _print(console, profile)
    if arguments.out is not None:
        write_text(arguments.out / TRACE, json.dumps(trace(profile)))
        write_bytes(arguments.out / PICTURE, lambda file: draw(profile, file))
        console.print(f"timelines in {arguments.out / TRACE} and {arguments.out / PICTURE}")
    return {"engine": arguments.engine, **profile.as_dict()}


def _print(console: Any, profile: Any) -> None:
    from rich.table import Column, Table

    from gateformer.compiler.timeline import Reason

    timeline, bound = profile.timeline, profile.bound
    cycles = max(timeline.cycles, 1)

    def number(title: str) -> Column:
        return Column(title, justify="right")

    engines = Table("cycles", title="what the engines do, and what they wait for")
    for engine in profile.engines:
        engines.add_column(engine.name, justify="right", overflow="fold")
    shares = profile.engines.values()
    engines.add_row("at work", *(f"{share.busy:,}" for share in shares))
    engines.add_row("", *(f"{100 * share.busy / cycles:.1f} %" for share in shares))
    for reason in Reason:
        engines.add_row(
            reason.value, *(f"{share.waits.get(reason.value, 0):,}" for share in shares)
        )
    engines.add_row("bytes", *(f"{share.bytes:,}" for share in shares))
    engines.add_row("a cycle", *(f"{share.bytes / cycles:.2f}" for share in shares))
    console.print(engines)
    late = profile.idle[:SHOWN]
    layers = Table(
        Column("layer", overflow="fold"),
        *map(number, ("cycles", "array busy", "waiting")),
        "for",
        number("DRAM bytes"),
        title=f"the {len(late)} of {len(profile.layers)} layers for which the array waits longest",
    )
    for layer in late:
        causes = sorted(layer.waits.items(), key=lambda item: -item[1])
        layers.add_row(
            layer.name,
            f"{layer.cycles:,}",
            f"{100 * layer.utilization(profile.config):.1f} %",
            f"{sum(layer.waits.values()):,}",
            ", ".join(f"{reason} {count:,}" for reason, count in causes if count),
            f"{layer.dram_bytes:,}",
        )
    console.print(layers)
    console.print(
        f"{timeline.cycles:,} cycles, array busy {100 * profile.utilization:.1f} % with the "
        f"model's products; the bound is {bound.cycles:,} cycles, {100 * profile.attainable:.1f} %"
    )
    parts = ("products", "rounding", "first_load", "last_store", "dram")
    named = (f"{name.replace('_', ' ')} {getattr(bound, name):,}" for name in parts)
    console.print(f"of the bound: {', '.join(named)}")
    moved = timeline.dram_beats * profile.config.bus_bytes
    console.print(
        f"DRAM: {moved:,} bytes, {moved / cycles:.2f} a cycle, its bus taken in "
        f"{100 * timeline.dram_cycles / cycles:.1f} % of the cycles"
    )
