"""`gateformer simulate`: runs a compiled model on the RTL or on the golden model."""

import argparse
from pathlib import Path
from typing import Any

from gateformer.cli.files import require_writable, write_bytes
from gateformer.cli.options import add_model, add_samples
from gateformer.spec.errors import GateformerError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "simulate",
        help="run a compiled model on the RTL or the golden model",
        description="Runs every sample of an .npz file. With --engine rtl (the default) the "
        "generated Verilog runs in Verilator, and every instruction's writes are compared with the "
        "golden model's.",
        epilog="example: gateformer simulate build/digits --input in.npz --output out.npz",
    )
    add_model(parser)
    add_samples(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.npz", help="the results")
    parser.add_argument("--engine", choices=("rtl", "golden"), default="rtl", help="what runs")
    parser.add_argument(
        "--length",
        type=int,
        metavar="L",
        help="run only the first L tokens of every sample (masks may leave fewer)",
    )
    parser.add_argument("--trace", type=Path, metavar="FILE.fst", help="all signals of the RTL run")
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    from rich.console import Console

    from gateformer.cli.progress import task_progress
    from gateformer.compiler.folder import CompiledModel
    from gateformer.compiler.samples import load_samples, split_samples
    from gateformer.sim.simulate import simulate, stalls_by_engine, utilization

    if arguments.trace and arguments.engine != "rtl":
        raise GateformerError("--trace records the RTL: use it with --engine rtl")
    model = CompiledModel.load(arguments.model)
    samples = split_samples(load_samples(arguments.input, model.host().inputs))
    require_writable(arguments.output)
    if arguments.trace:
        require_writable(arguments.trace)
    console = Console()
    with task_progress(console, "simulating", len(samples)) as (advance, note):
        runs = []
        for result in simulate(
            model,
            samples,
            engine=arguments.engine,
            length=arguments.length,
            trace=arguments.trace,
            progress=note,
        ):
            runs.append(result)
            for _ in result.outputs:
                advance()
    outputs = [sample for result in runs for sample in result.outputs]
    arrays = {name: np.stack([sample[name] for sample in outputs]) for name in outputs[0]}
    write_bytes(arguments.output, lambda file: np.savez(file, allow_pickle=False, **arrays))
    answer: dict[str, Any] = {"samples": len(outputs), "macs": sum(r.macs for r in runs)}
    if arguments.engine == "rtl":
        cycles = [r.cycles for r in runs if r.cycles is not None]
        answer |= {
            "cycles": cycles,
            "utilization": utilization(model.config, answer["macs"], sum(cycles)),
            "bit_exact": all(r.bit_exact for r in runs),
            "stalls": stalls_by_engine(runs[-1].counters),
        }
        exact = "bit-exact" if answer["bit_exact"] else "NOT equal to the golden model"
        console.print(
            f"{len(outputs)} samples, {exact}, {sum(cycles):,} cycles in {len(runs)} runs, array "
            f"busy {100 * answer['utilization']:.1f} %"
        )
    console.print(f"outputs in {arguments.output}")
    return answer
