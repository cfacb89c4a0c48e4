"""Sentence embeddings of a real pretrained model on the accelerator.

    python -m gateformer.examples.minilm.demo [--config C] [--tokens N] [--batch B] [--json F]

Exports the model, compiles it, embeds the evaluation sentences with the integer model and compares
them with float; then runs one of them through all six layers of the generated Verilog.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from gateformer.cli.files import write_json
from gateformer.cli.progress import task_progress
from gateformer.compiler.compile import Options, compile
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.samples import split_samples
from gateformer.examples.minilm.model import INPUTS, OUTPUT, export, tokenize
from gateformer.examples.minilm.sentences import CALIBRATION, EVALUATION
from gateformer.sim.simulate import simulate, utilization
from gateformer.sim.verify import Verifier
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import find_config

BUILD = Path("build/minilm")
LEAST_TOKENS = 16
"""Tokens that the sentence for the RTL has at least."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="all-MiniLM-L6-v2 on the accelerator")
    parser.add_argument("--config", default="ecp5-85k", help="accelerator config")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of a sentence")
    parser.add_argument("--batch", type=int, default=1, help="sentences that run together")
    parser.add_argument("--json", type=Path, default=Path("build/minilm.json"), help="the figures")
    options = parser.parse_args(arguments)
    console = Console()
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / "minilm.onnx"
    with console.status("exporting the model"):
        export(path)
    compiled, seconds = compile_model(path, options.config, options.tokens, options.batch, console)
    arrays = tokenize(EVALUATION, options.tokens)
    exact = float_embeddings(path, arrays)
    golden = golden_embeddings(compiled, arrays, console)
    answer = agreement(exact, golden)
    answer["float_difference"] = float_difference(path, options.tokens, find_config(options.config))
    answer |= run_rtl(compiled, arrays, console)
    answer["compile_seconds"] = seconds
    table = Table("figure", "value", title=f"all-MiniLM-L6-v2 on {options.config}")
    for name, value in answer.items():
        table.add_row(name, _shown(value))
    console.print(table)
    write_json(options.json, answer)
    console.print(f"figures in {options.json}, the program in {BUILD / options.config}")


def _shown(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:,.4f}"
    return f"{value:,}"


def compile_model(
    path: Path, config: str, tokens: int, batch: int, console: Console
) -> tuple[CompiledModel, float]:
    """The compiled model, and the seconds from the imported file to the program."""
    calibration = BUILD / "calibration.npz"
    np.savez(calibration, allow_pickle=False, **tokenize(CALIBRATION, tokens))
    imported = 0.0
    with console.status("compiling: import") as status:

        def observe(name: str, _: Any) -> None:
            nonlocal imported
            imported = imported or time.perf_counter()
            status.update(f"compiling: after {name}")

        options = Options({INPUTS[0]: (1, tokens)}, samples=batch, observe=observe)
        compiled = compile(path, calibration, find_config(config), options)
    seconds = time.perf_counter() - imported
    assert compiled is not None
    compiled.save(BUILD / config)
    return compiled, seconds


def float_embeddings(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Of every sentence, by onnxruntime: [sentences, 384]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], one)[0] for one in split_samples(arrays)])


def float_difference(path: Path, tokens: int, config: AcceleratorConfig) -> float:
    """How far the imported graph in float is from onnxruntime, of the largest output."""
    verifier = Verifier(path, BUILD / "calibration.npz", config)
    imported = import_model(path, {INPUTS[0]: (1, tokens)})
    verifier.check("import", imported)
    verifier.check("lower", lower(imported))
    return max(verifier.differences.values())


def golden_embeddings(
    compiled: CompiledModel, arrays: dict[str, np.ndarray], console: Console
) -> np.ndarray:
    """The same by the integer model."""
    samples, results = split_samples(arrays), []
    with task_progress(console, "golden", len(samples)) as (advance, _):
        for run in simulate(compiled, samples, engine="golden"):
            for outputs in run.outputs:
                results.append(outputs[OUTPUT])
                advance()
    return np.concatenate(results)


def agreement(exact: np.ndarray, golden: np.ndarray) -> dict[str, Any]:
    """How close the integer embeddings and their ranking of pairs are to float."""
    cosines = (exact * golden).sum(1) / np.linalg.norm(golden, axis=1)
    pairs = tuple(np.array(list(combinations(range(len(exact)), 2))).T)
    similarities = ((x @ x.T)[pairs] for x in (exact, golden))
    return {
        "sentences": len(exact),
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "spearman": float(spearmanr(*similarities).statistic),
    }


def run_rtl(
    compiled: CompiledModel, arrays: dict[str, np.ndarray], console: Console
) -> dict[str, Any]:
    """One batch of sentences of at least LEAST_TOKENS tokens through the generated Verilog."""
    lengths = arrays["attention_mask"].sum(axis=(1, 2))
    chosen = np.flatnonzero(lengths >= LEAST_TOKENS)[: compiled.image.samples]
    samples = split_samples({name: array[chosen] for name, array in arrays.items()})
    with console.status("simulating") as status:
        (result,) = simulate(
            compiled, samples, build=BUILD / "rtl", progress=lambda note: status.update(note)
        )
    assert result.cycles is not None
    return {
        "rtl_tokens": int(lengths[chosen].sum()),
        "rtl_bit_exact": result.bit_exact,
        "rtl_cycles": result.cycles,
        "utilization": utilization(compiled.config, result.macs, result.cycles),
        "simulated_cycles_per_second": round(result.cycles / result.seconds),
    }


if __name__ == "__main__":
    main()
