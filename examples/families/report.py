"""Compiles every fixture, runs it on the generated Verilog, and prints how exact it is.

    python -m gateformer.examples.families.report [--config C] [--json F]

What it prints is docs/models.md's table.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from gateformer.cli.files import write_json
from gateformer.compiler.compile import Options, compile
from gateformer.compiler.cycle_model import predict_cycles
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
    """What was seen of one family. imported: largest difference of the lowered graph in float from
    onnxruntime, of the largest output. decibels, cosine: outputs of the integer model against
    onnxruntime's, over tokens that count. cycles: of one input; predicted: by the cycle model."""

    name: str
    imported: float
    macs: int
    decibels: float
    cosine: float
    bit_exact: bool
    cycles: int
    predicted: int
    utilization: float


def compile_family(
    family: Family, config: AcceleratorConfig, folder: Path, samples: int = 1
) -> tuple[CompiledModel, float]:
    """Compiles a fixture; every pass is compared with the one before, as by `--verify`. Also
    returns how far the lowered graph is from onnxruntime."""
    calibration = folder / "calibration.npz"
    np.savez(calibration, allow_pickle=False, **family.calibration(CALIBRATION, SEED))
    verifier = Verifier(family.path, calibration, config)

    def observe(name: str, result: object) -> None:
        verifier.check(name, result)

    options = Options(dict(family.shapes), samples=samples, observe=observe)
    compiled = compile(family.path, calibration, config, options)
    assert compiled is not None
    return compiled, verifier.differences["lower"]


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
        compiled, imported = compile_family(family, config, Path(folder))
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
    lengths = compiled.host().encode(samples[:1], None).lengths
    return Measurement(
        name=family.name,
        imported=imported,
        macs=result.macs,
        decibels=10 * float(np.log10(signal / max(noise, 1e-30))),
        cosine=float(exact @ golden / np.linalg.norm(exact) / np.linalg.norm(golden)),
        bit_exact=bool(result.bit_exact),
        cycles=result.cycles,
        predicted=predict_cycles(config, compiled.image.at_lengths(lengths)),
        utilization=utilization(config, result.macs, result.cycles),
    )


TITLES = (
    "fixture", "architecture", "exporter, opset", "tokens", "hidden", "heads x size", "activation",
    "import", "SNR", "cosine", "RTL", "cycles", "busy", "1 token: SNR", "RTL", "cycles",
)  # fmt: skip


def row(family: Family, whole: Measurement, short: Measurement | None) -> tuple[str, ...]:
    """The table's entries. whole, short: at full length and, where there are masks, 1 token."""

    def exact(measurement: Measurement) -> str:
        return "bit-exact" if measurement.bit_exact else "DIFFERS"

    return (
        family.name,
        family.architecture,
        f"{family.exporter}, {family.opset}",
        str(family.tokens),
        str(family.hidden),
        f"{family.heads} x {family.head_size}",
        family.activation,
        f"{whole.imported:.0e}",
        f"{whole.decibels:.1f} dB",
        f"{whole.cosine:.4f}",
        exact(whole),
        f"{whole.cycles:,}",
        f"{100 * whole.utilization:.1f} %",
        *(("", "", "") if short is None else (
            f"{short.decibels:.1f} dB", exact(short), f"{short.cycles:,}"
        )),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="measures every family's fixture")
    parser.add_argument("--config", default="ecp5-85k", help="accelerator config")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    config, build = find_config(options.config), Path("build/rtl")
    print(_line(TITLES), _line("---" for _ in TITLES), sep="\n")
    figures = []
    for family in FAMILIES:
        whole = measure(family, config, build=build)
        short = measure(family, config, length=1, build=build) if family.masks else None
        print(_line(row(family, whole, short)), flush=True)
        figures.append({"whole": asdict(whole), "short": asdict(short) if short else None})
    if options.json:
        write_json(options.json, {"families": figures})


def _line(entries: Iterable[str]) -> str:
    return f"| {' | '.join(entries)} |"


if __name__ == "__main__":
    main()
