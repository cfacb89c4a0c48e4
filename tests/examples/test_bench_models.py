"""The benchmark's models at small sizes: they compile, and compute what onnxruntime does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gateformer.compiler.compile import compile
from gateformer.compiler.samples import load_samples, split_samples
from gateformer.examples.bench import models
from gateformer.sim.simulate import simulate
from gateformer.spec.configs import SMALL

CASES = {
    "vision": models.vision_transformer(
        layers=2, tokens=10, dim=24, heads=3, hidden=40, patch=12, classes=7
    ),
    "post-norm": models.post_norm_encoder(layers=1, tokens=9, dim=32, heads=2, hidden=48),
    "attention": models.attention(tokens=9, heads=3, size=8),
}


@pytest.mark.parametrize("name", CASES)
def test_small(name: str, tmp_path: Path) -> None:
    models.write(CASES[name], tmp_path)
    path = tmp_path / "model.onnx"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    compiled = compile(path, tmp_path / "calibration.npz", SMALL)
    assert compiled is not None
    samples = split_samples(load_samples(tmp_path / "input.npz", compiled.host().inputs))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for sample, run in zip(samples, simulate(compiled, samples, engine="golden"), strict=True):
        (expected,), (seen,) = session.run(None, dict(sample)), run.outputs[0].values()
        noise = np.square(seen - expected).sum() / np.square(expected).sum()
        assert noise < 0.01


def test_command(tmp_path: Path) -> None:
    models.main(["attention", "--layers", "1", "-o", str(tmp_path / "new")])
    arrays = np.load(tmp_path / "new" / "input.npz")
    assert {name: array.shape for name, array in arrays.items()} == {
        "query": (1, 1, 3, 197, 64),
        "key": (1, 1, 3, 197, 64),
        "value": (1, 1, 3, 64, 197),
    }
