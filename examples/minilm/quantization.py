"""What each choice of quantization buys on all-MiniLM-L6-v2: the tables of docs/quantization.md.

    python -m gateformer.examples.minilm.quantization [--json F]

Cosines are those between the float and the integer model's sentence embeddings, on sentences that
the calibration did not see. Config ecp5-85k unless a row says otherwise; the integer model alone
runs, which the hardware equals bit for bit.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gateformer.cli.files import write_json
from gateformer.compiler.calibration import calibrate, sample_length
from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.graph import Gemm, Graph, Norm, Role, Softmax
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import quantize_calibrated
from gateformer.compiler.quantize_options import QuantizationOptions
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.compiler.reference import reference_session
from gateformer.compiler.samples import split_samples
from gateformer.examples.minilm.model import INPUTS, OUTPUT, export, tokenize
from gateformer.examples.minilm.sentences import CALIBRATION, EVALUATION
from gateformer.sim.golden_graph import run_quantized
from gateformer.sim.quality import Sample, measure
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K

TOKENS = 32
NARROW = ECP5_85K.replace(activation_bits=8)
DEFAULTS = QuantizationOptions()
PLAIN = replace(DEFAULTS, smoothing=None, centering=False, zero_points=False)


@dataclass(frozen=True)
class Row:
    """One line of a table: what is quantized how."""

    what: str
    options: QuantizationOptions = DEFAULTS
    config: AcceleratorConfig = ECP5_85K


STEPS = (
    Row("everything int8, the residual stream too", replace(PLAIN, residual_bits=8), NARROW),
    Row("residual stream int16", PLAIN, NARROW),
    Row(
        "+ smoothing of the norms' int8 results",
        replace(PLAIN, smoothing=DEFAULTS.smoothing),
        NARROW,
    ),
    Row("+ centering of their channels", replace(DEFAULTS, zero_points=False), NARROW),
    Row("+ zero point after GELU", DEFAULTS, NARROW),
    Row("+ 10-bit input of the GELU table: the defaults"),
)
"""Each line adds one thing."""
CHANGES = (
    Row("defaults"),
    Row("estimator minmax", replace(DEFAULTS, estimator="minmax")),
    Row("estimator percentile 99.9", replace(DEFAULTS, estimator="percentile", percentile=99.9)),
    Row("estimator percentile 99.99", replace(DEFAULTS, estimator="percentile")),
    Row(
        "estimator percentile 99.999", replace(DEFAULTS, estimator="percentile", percentile=99.999)
    ),
    Row("smoothing off", replace(DEFAULTS, smoothing=None)),
    Row("smoothing 0.3", replace(DEFAULTS, smoothing=0.3)),
    Row("smoothing 0.7", replace(DEFAULTS, smoothing=0.7)),
    Row("smoothing 0.9", replace(DEFAULTS, smoothing=0.9)),
    Row("no centering", replace(DEFAULTS, centering=False)),
    Row("no smoothing, no centering", replace(DEFAULTS, smoothing=None, centering=False)),
    Row("no zero points", replace(DEFAULTS, zero_points=False)),
    Row("one scale for each weight matrix", replace(DEFAULTS, weights="tensor")),
    Row("residual stream of 12 bits", replace(DEFAULTS, residual_bits=12)),
    Row("residual stream of 10 bits", replace(DEFAULTS, residual_bits=10)),
    Row("residual stream of 8 bits", replace(DEFAULTS, residual_bits=8)),
    Row("headroom of scores 1", replace(DEFAULTS, scores_headroom=1.0)),
    Row("headroom of scores 1.5", replace(DEFAULTS, scores_headroom=1.5)),
    Row("8-bit input of the GELU table", DEFAULTS, NARROW),
    Row("GELU by polynomial", DEFAULTS, ECP5_85K.replace(gelu="polynomial")),
)
"""Each line changes one thing."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="quantization of all-MiniLM-L6-v2, step by step")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures here")
    options = parser.parse_args(arguments)
    console = Console()
    with console.status("exporting the model") as status, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minilm.onnx"
        export(path)
        session = reference_session(path)
        status.update("importing it")
        graph = lower(import_model(path, {INPUTS[0]: (1, TOKENS)}))
        samples = split_samples(tokenize(EVALUATION, TOKENS))
        expected = [session.run([OUTPUT], dict(sample))[0] for sample in samples]
        status.update("calibrating it")
        calibration = calibrate(graph, tokenize(CALIBRATION, TOKENS))
        answer: dict[str, Any] = {"sentences": len(samples)}
        for title, rows in (("step by step", STEPS), ("one choice at a time", CHANGES)):
            table = Table(title, "cosine mean", "min")
            for row in rows:
                status.update(row.what)
                quantized = quantize_calibrated(graph, row.config, calibration, row.options)
                cosines = embed(graph, quantized, row.config, samples, expected)
                table.add_row(row.what, f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
                answer.setdefault(title, {})[row.what] = [cosines.mean(), cosines.min()]
            console.print(table)
        status.update("layer by layer")
        quantized = quantize_calibrated(graph, ECP5_85K, calibration)
        answer["noise"] = noise_by_kind(graph, quantized, samples, expected)
    table = Table("results of", "own noise [dB]", "all noise [dB]", title="signal to noise")
    for kind, (own, total) in answer["noise"].items():
        table.add_row(kind, f"{own:.1f}", f"{total:.1f}")
    console.print(table)
    if options.json is not None:
        write_json(options.json, answer)


def embed(
    graph: Graph,
    quantized: QuantizedGraph,
    config: AcceleratorConfig,
    samples: Sequence[Sample],
    expected: Sequence[np.ndarray],
) -> np.ndarray:
    """The cosine of every sentence's integer embedding to the expected one."""
    before, after = HostRunner(graph.host.before), HostRunner(graph.host.after)
    tensors = quantized.tensors.values()
    cosines = []
    for sample, exact in zip(samples, expected, strict=True):
        matrices = before.run(sample)
        length = sample_length(graph, matrices)
        codes = {
            t.name: quantize_input(t, matrices[t.name], config.residual_bits)
            for t in tensors
            if t.role is Role.INPUT
        }
        results = run_quantized(quantized, codes, config, None if length is None else [length])
        outputs = {t.name: dequantize(t, results[t.name]) for t in tensors if t.role is Role.OUTPUT}
        got = after.run({**sample, **outputs})[OUTPUT]
        cosines.append(float((got * exact).sum() / np.linalg.norm(got) / np.linalg.norm(exact)))
    return np.array(cosines)


def noise_by_kind(
    graph: Graph,
    quantized: QuantizedGraph,
    samples: Sequence[Sample],
    expected: Sequence[np.ndarray],
) -> dict[str, tuple[float, float]]:
    """Signal to noise in dB of each kind of result, its own noise and all: means over the layers'
    ratios of powers."""
    references = iter(expected)
    quality = measure(graph, quantized, ECP5_85K, samples, lambda _: {OUTPUT: next(references)})
    scores = {op.source.tensor for op in graph.operations if isinstance(op, Softmax)}
    shares = {op.target.tensor for op in graph.operations if isinstance(op, Softmax)}
    kinds = {}
    for op in graph.operations:
        match op:
            case Softmax():
                kinds[op.name] = "softmax"
            case Norm():
                kinds[op.name] = "norm"
            case Gemm() if op.activation:
                kinds[op.name] = "up-projection and GELU"
            case Gemm() if op.residual:
                kinds[op.name] = "projection and residual"
            case Gemm() if op.out.tensor in scores:
                kinds[op.name] = "scores"
            case Gemm() if op.a.tensor in shares:
                kinds[op.name] = "attention"
            case Gemm():
                kinds[op.name] = "query, key, value"
    groups: dict[str, list[tuple[float, float]]] = {}
    for layer in quality.layers:
        group = groups.setdefault(f"{kinds[layer.name]} ({layer.form})", [])
        group.append((10 ** (-layer.own_snr / 10), 10 ** (-layer.snr / 10)))
    means = {kind: -10 * np.log10(np.mean(ratios, axis=0)) for kind, ratios in groups.items()}
    return {kind: (float(own), float(total)) for kind, (own, total) in means.items()}


if __name__ == "__main__":
    main()
