"""`gateformer compile`: from an ONNX file to a program."""

import argparse
from pathlib import Path
from typing import Any

from gateformer.cli.options import add_config, add_shape
from gateformer.cli.quantization import add_quantization, quantization_options
from gateformer.spec.configs import find_config

PASSES = (
    "import",
    "lower",
    "quantize",
    "batch",
    "order",
    "plan",
    "schedule",
    "synchronize",
    "encode",
)
"""The compiler's passes in order."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compile",
        help="compile an ONNX file for a config",
        description="Quantizes a float model to integers and compiles it to a program image.",
        epilog="example: gateformer compile examples/digits/digits.onnx --calibration "
        "examples/digits/calibration.npz --config ecp5-85k -o build/digits",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model")
    parser.add_argument(
        "--calibration",
        type=Path,
        required=True,
        metavar="CAL.npz",
        help="sample inputs: arrays by input name, [samples, *shape of the input]",
    )
    add_config(parser)
    add_shape(parser)
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="B",
        help="samples of one program, which share the weights, or run in turn where that is faster",
    )
    add_quantization(parser)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="result")
    parser.add_argument(
        "--stop-after",
        choices=PASSES,
        metavar="PASS",
        help=f"print the result of one of {', '.join(PASSES)}, and stop",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="execute the graph after each pass on the calibration samples and compare",
    )
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    from gateformer.compiler.compile import Options, compile
    from gateformer.compiler.passes import describe
    from gateformer.sim.verify import Verifier

    config = find_config(arguments.config)
    console = Console()
    verifier = (
        Verifier(arguments.model, arguments.calibration, config) if arguments.verify else None
    )
    with console.status("compiling") as status:

        def observe(name: str, result: Any) -> None:
            status.update(f"compiling: after {name}")
            if name == arguments.stop_after:
                for line in describe(result):
                    print(line)
            if verifier is not None:
                console.print(verifier.check(name, result))

        options = Options(
            dict(arguments.shape),
            samples=arguments.batch,
            quantization=quantization_options(arguments),
            stop_after=arguments.stop_after,
            observe=observe,
        )
        compiled = compile(arguments.model, arguments.calibration, config, options)
        if compiled is None:
            console.print(f"stopped after {arguments.stop_after}, nothing written")
            return {"stopped_after": arguments.stop_after}
        compiled.save(arguments.output)
    record = compiled.record
    table = Table("figure", "value", title=f"{record['model']} for {config.name}")
    for name in ("model_macs", "instructions", "weight_bytes", "predicted_cycles"):
        table.add_row(name, f"{record[name]:,}")
    console.print(table)
    for operation in record["host_ops"]:
        console.print(f"host: {operation['node']} ({operation['operator']}): {operation['reason']}")
    console.print(f"program in {arguments.output}")
    names = ("model_macs", "instructions", "weight_bytes", "host_ops", "predicted_cycles")
    return {name: record[name] for name in names}
