"""How long a model of BERT-base's shape takes to compile, and how much memory. Needs the extra
`train`.

    python -m gateformer.examples.families.bert_base [--config C]

12 layers, 768 channels, 3,072 between the two products of a layer, 128 tokens, random weights.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gateformer.compiler.compile import Options, compile
from gateformer.examples.families.families import BERT_BASE
from gateformer.spec.configs import find_config

BUILD = Path("build/bert-base")
CALIBRATION = 4


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="compiles a model of BERT-base's shape")
    parser.add_argument("--config", default="ecp5-85k", help="accelerator config")
    config = find_config(parser.parse_args(arguments).config)
    console = Console()
    BUILD.mkdir(parents=True, exist_ok=True)
    model, calibration = BUILD / "bert-base.onnx", BUILD / "calibration.npz"
    if not model.exists():
        # In a process of its own, for its memory is not the compiler's.
        command = [sys.executable, "-m", "gateformer.examples.families.export", str(model)]
        with console.status("exporting the model"):
            subprocess.run(command, check=True, capture_output=True)
    np.savez(calibration, allow_pickle=False, **BERT_BASE.calibration(CALIBRATION, 1))
    start = last = time.perf_counter()

    def observe(name: str, _: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        console.print(f"{name:<12}{now - last:6.1f} s")
        last = now

    options = Options(dict(BERT_BASE.shapes), observe=observe)
    compiled = compile(model, calibration, config, options)
    assert compiled is not None
    compiled.save(BUILD / config.name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{'all':<12}{time.perf_counter() - start:6.1f} s, {peak:.2f} GiB at most")
    record = compiled.record
    share = compiled.image.model_macs / (config.macs * record["predicted_cycles"])
    console.print(
        f"{record['model_macs']:,} MACs, {record['instructions']:,} instructions, "
        f"{record['predicted_cycles']:,} cycles predicted, array busy {100 * share:.1f} %"
    )


if __name__ == "__main__":
    main()
