"""`gateformer quality`: how close a compiled model is to float, layer by layer."""

import argparse
from pathlib import Path
from typing import Any

from gateformer.cli.files import make_folder, write_bytes, write_json
from gateformer.cli.options import add_model, add_samples

PICTURE = "quality.png"
REPORT = "quality.json"
SHOWN = 12
"""Layers in the printed table."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "quality",
        help="compare a compiled model with float, layer by layer",
        description="Runs samples in float (onnxruntime, and the imported graph for the layers) "
        "and in the program's integers, and prints the model's outputs and the layers that add "
        f"most noise. --out keeps all of it: {PICTURE} and {REPORT}.",
        epilog="example: gateformer quality build/digits --input eval.npz --out build/quality",
    )
    add_model(parser)
    add_samples(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"write {PICTURE} and {REPORT} here"
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from gateformer.cli.progress import task_progress
    from gateformer.compiler.folder import CompiledModel
    from gateformer.compiler.samples import load_samples, split_samples
    from gateformer.sim.quality import measure_model
    from gateformer.sim.quality_plot import draw

    model = CompiledModel.load(arguments.model)
    samples = split_samples(load_samples(arguments.input, model.host().inputs))
    if arguments.out is not None:
        make_folder(arguments.out)
    console = Console()
    with task_progress(console, "comparing", len(samples)) as (advance, _):
        quality = measure_model(model, samples, advance)
    _print(console, quality)
    answer = quality.as_dict()
    if arguments.out is not None:
        write_bytes(arguments.out / PICTURE, lambda file: draw(quality, file))
        write_json(arguments.out / REPORT, answer)
        console.print(f"all layers in {arguments.out / PICTURE} and {arguments.out / REPORT}")
    return answer


def _print(console: Any, quality: Any) -> None:
    from rich.table import Column, Table

    outputs = Table("output", "SNR [dB]", "cosine mean", "min", title="outputs against float")
    for output in quality.outputs:
        mean = sum(output.cosines) / len(output.cosines)
        outputs.add_row(
            output.name, f"{output.snr:.1f}", f"{mean:.5f}", f"{min(output.cosines):.5f}"
        )
    console.print(outputs)
    layers = Table(
        Column("layer", overflow="fold"),
        *("own SNR", "SNR [dB]", "cosine", "saturated"),
        title=f"the {min(SHOWN, len(quality.layers))} of {len(quality.layers)} layers that add "
        "most noise",
    )
    for layer in quality.costly(SHOWN):
        layers.add_row(
            layer.name,
            f"{layer.own_snr:.1f}",
            f"{layer.snr:.1f}",
            f"{layer.cosine:.5f}",
            f"{layer.saturated:,} of {layer.values:,}",
        )
    console.print(layers)
