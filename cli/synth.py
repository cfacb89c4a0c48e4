"""`gateformer synth`: size and speed of the accelerator on an FPGA."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateformer.boards.synth import DEVICES, synthesize
from gateformer.cli.options import add_config, positive
from gateformer.spec.configs import find_config


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "synth",
        help="measure the accelerator's size and speed on an FPGA",
        description="Synthesizes the accelerator with Yosys and, with --pnr, places and routes it "
        "with nextpnr. The device decides which family's primitives are used.",
        epilog="example: gateformer synth --config ecp5-85k --device ecp5-85k --pnr --seeds 3",
    )
    add_config(parser)
    parser.add_argument("--device", required=True, choices=DEVICES, help="the FPGA")
    parser.add_argument("--pnr", action="store_true", help="place and route (minutes)")
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="runs of nextpnr (1 if left out)"
    )
    parser.add_argument(
        "--build",
        type=Path,
        metavar="DIR",
        help="folder of sources, netlists and logs (build/synth/DEVICE if left out)",
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from gateformer.hw.generate import TOP, accelerator_verilog

    device = DEVICES[arguments.device]
    config = find_config(arguments.config).replace(family=device.family)
    folder = arguments.build or Path("build", "synth", device.name)
    console = Console()
    with console.status("Amaranth: Verilog") as status:
        text, _ = accelerator_verilog(config)
        report = synthesize(
            text,
            device,
            top=TOP,
            build_dir=folder,
            macs=config.macs,
            pnr=arguments.pnr,
            seeds=arguments.seeds,
            progress=status.update,
        )
    table = Table("figure", "value", title=f"{config.name} on {device.name}")
    for name, value in report.as_dict().items():
        if name not in ("device", "utilization"):
            table.add_row(name, "-" if value in (None, []) else str(value))
    console.print(table)
    return report.as_dict()
