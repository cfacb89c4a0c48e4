"""`gateformer demo`: real scans of digits, classified by the generated hardware."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateformer.cli.files import write_text
from gateformer.cli.options import positive
from gateformer.spec.configs import find_config
from gateformer.spec.errors import DataError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="classify real digits on the generated hardware",
        description="Compiles the digits model, generates the Verilog, builds it with Verilator, "
        "and classifies test images on it, every integer compared with the golden model's.",
        epilog="example: gateformer demo --images 20 --config small",
    )
    parser.add_argument(
        "--images", type=positive, default=20, metavar="N", help="test images on the RTL (20)"
    )
    parser.add_argument(
        "--config", default="ecp5-85k", metavar="NAME|FILE.toml", help="the accelerator (ecp5-85k)"
    )
    parser.add_argument(
        "-o", dest="output", type=Path, default=Path("build/demo"), metavar="DIR", help="results"
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from gateformer.cli.progress import task_progress
    from gateformer.examples.digits.demo import Demo, contact_sheet
    from gateformer.hw.generate import accelerator_verilog

    config = find_config(arguments.config)
    console = Console()
    with console.status("compiling the digits model"):
        demo = Demo(config)
        if arguments.images > len(demo.images):
            raise DataError(
                f"--images {arguments.images}: there are {len(demo.images)} test images"
            )
        demo.model.save(arguments.output / "program")
    with console.status("generating Verilog"):
        verilog = arguments.output / f"{config.name}.v"
        write_text(verilog, accelerator_verilog(config.replace(family="generic"))[0])
    with task_progress(console, "golden model", len(demo.images)) as (advance, _):
        golden = demo.golden_classes(advance)
    answers = []
    with task_progress(console, "RTL", arguments.images) as (advance, note):
        for answer in demo.answers(arguments.images, golden, note):
            answers.append(answer)
            exact = "bit-exact" if answer.bit_exact else "NOT bit-exact"
            console.print(
                f"image {len(answers):3}: label {answer.label}, RTL {answer.rtl}, "
                f"golden {answer.golden}, {answer.cycles:,} cycles, {exact}"
            )
            advance()
    sheet = arguments.output / "digits.png"
    contact_sheet(answers, sheet)
    summary = demo.summary(answers, golden)
    console.print(
        f"\naccuracy: float {summary.float_accuracy:.2%}, golden {summary.golden_accuracy:.2%} (of "
        f"{len(demo.images)}), RTL {summary.rtl_accuracy:.2%} (of {summary.images})\n"
        f"bit-exact: {'yes' if summary.bit_exact else 'NO'}\n"
        f"cycles per image: {summary.cycles_per_image:,.0f}, array busy "
        f"{100 * summary.utilization:.1f} % with the model's products\n"
        f"simulated cycles per second: {summary.simulated_cycles_per_second:,.0f}\n"
        f"Verilog: {verilog}\nprogram: {arguments.output / 'program'}\npicture: {sheet}"
    )
    return asdict(summary)
