"""Compiles every fixture, runs it on the generated Verilog, and prints how exact it is.

    python -m gateformer.examples.families.report [--config C] [--json F]

docs/models.md quotes what it prints.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from gateformer.cli.files import write_json
from gateformer.compiler.compile import Options, compile
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.samples import split_samples
from gateformer.examples.families.families import FAMILIES, Family
from gateformer.sim.simulate import simulate, utilization
from gateformer.sim.verify import Verifier
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import find_config

CALIBRATION, EVALUATION = 64, 8
"""Random inputs that calibrate a model, and others that measure it."""
SEED = 1


@dataclass(frozen=True)
class Measurement:
    """What was seen of one family. decibels, cosine: outputs of the integer model against
    onnxruntime's, over tokens that count. cycles: of one input at full length."""

    name: str
    macs: int
    decibels: float
    cosine: float
    bit_exact: bool
    cycles: int
    utilization: float


def compile_family(
    family: Family, config: AcceleratorConfig, folder: Path, samples: int = 1
) -> CompiledModel:
    """Compiles a fixture; every pass is compared with the one before, as by `--verify`."""
    calibration = folder / "calibration.npz"
    np.savez(calibration, allow_pickle=False, **family.calibration(CALIBRATION, SEED))
    verifier = Verifier(family.path, calibration, config)

    def observe(name: str, result: object) -> None:
        verifier.check(name, result)

    options = Options(dict(family.shapes), samples=samples, observe=observe)
    compiled = compile(family.path, calibration, config, options)
    assert compiled is not None
    return compiled


def expected(family: Family, samples: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """onnxruntime's output for every sample; of a sequence only the tokens that count."""
    session = onnxruntime.InferenceSession(str(family.path), providers=["CPUExecutionProvider"])
    return [session.run(None, dict(sample))[0] for sample in samples]


def measure(
    family: Family, config: AcceleratorConfig, *, length: int | None = None, build: Path
) -> Measurement:
    """length: how many tokens of the masks count; None stands for all. build: where the compiled
    simulation is kept."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_family(family, config, Path(folder))
    samples = split_samples(family.inputs(EVALUATION, SEED + 1, length))
    pairs = []
    for run, exact in zip(
        simulate(compiled, samples, engine="golden"), expected(family, samples), strict=True
    ):
        (output,) = run.outputs[0].values()
        counted = slice(length) if exact.ndim == 3 else slice(None)
        pairs.append((exact[:, counted].ravel(), output[:, counted].ravel()))
    exact, golden = (np.concatenate(side) for side in zip(*pairs, strict=True))
    noise = float(np.square(golden - exact).sum())
    signal = float(np.square(exact).sum())
    (result,) = simulate(compiled, samples[:1], build=build)
    assert result.cycles is not None
    return Measurement(
        name=family.name,
        macs=result.macs,
        decibels=10 * float(np.log10(signal / max(noise, 1e-30))),
        cosine=float(exact @ golden / np.linalg.norm(exact) / np.linalg.norm(golden)),
        bit_exact=bool(result.bit_exact),
        cycles=result.cycles,
        utilization=utilization(config, result.macs, result.cycles),
    )


def rows(measurements: Sequence[Measurement]) -> Iterator[tuple[str, ...]]:
    """The table, its titles first."""
    yield (
        "fixture", "architecture", "exporter", "tokens", "hidden", "heads", "activation",
        "SNR", "cosine", "RTL", "cycles", "busy",
    )  # fmt: skip
    families = {family.name: family for family in FAMILIES}
    for m in measurements:
        f = families[m.name]
        yield (
            f.name,
            f.architecture,
            f"{f.exporter}, opset {f.opset}",
            str(f.tokens),
            str(f.hidden),
            f"{f.heads} x {f.head_size}",
            f.activation,
            f"{m.decibels:.1f} dB",
            f"{m.cosine:.4f}",
            "bit-exact" if m.bit_exact else "DIFFERS",
            f"{m.cycles:,}",
            f"{100 * m.utilization:.1f} %",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="measures every family's fixture")
    parser.add_argument("--config", default="ecp5-85k", help="accelerator config")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    config, console = find_config(options.config), Console()
    measurements = []
    with console.status("measuring") as status:
        for family in FAMILIES:
            status.update(f"measuring {family.name}")
            measurements.append(measure(family, config, build=Path("build/rtl")))
    titles, *lines = rows(measurements)
    table = Table(*titles, title=f"families on {config.name}")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if options.json:
        write_json(options.json, {"families": [asdict(m) for m in measurements]})


if __name__ == "__main__":
    main()
