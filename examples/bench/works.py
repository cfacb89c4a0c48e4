"""The benchmark's works: a model, a config, inputs, and how busy the array should be."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gateformer.compiler.compile import Options, compile
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.host_model import Sample
from gateformer.compiler.samples import load_samples, split_samples
from gateformer.examples.bench.models import MODELS, write
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import GateformerError

RESIDENT = {"dram": "readonly", "local_kib": 320}
"""A config with these changes has inputs and outputs in local memory, as inside of a model, and
fetches its program, tables and weights from DRAM."""
EXTRA = "minilm"
"""The extra of the package that real weights need."""


@dataclass(frozen=True)
class Prepared:
    """A compiled model and one batch for it. seconds: what compiling it took."""

    model: CompiledModel
    samples: Sequence[Sample]
    seconds: float


@dataclass(frozen=True)
class Work:
    """name: how `--only` calls it. changes: of the config's parameters. goal: the least share of
    its cycles in which the array is busy with the model's products; with of_bound, the share of the
    bound's."""

    name: str
    title: str
    config: str
    goal: float
    prepare: Callable[[AcceleratorConfig, Path], Prepared]
    of_bound: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


def random_weights(
    name: str, layers: int, config: AcceleratorConfig, folder: Path, *, batch: int = 1
) -> Prepared:
    """A model of `models.py`, with its own random inputs."""
    write(MODELS[name](layers), folder, batch)
    options = Options({}, samples=batch)
    model, seconds = _compile(folder / "model.onnx", folder / "calibration.npz", config, options)
    samples = load_samples(folder / "input.npz", model.host().inputs)
    return Prepared(model, split_samples(samples), seconds)


def minilm(tokens: int, batch: int, config: AcceleratorConfig, folder: Path) -> Prepared:
    """all-MiniLM-L6-v2 on sentences that fill all tokens. Raises GateformerError where its packages
    are not installed."""
    try:
        from gateformer.examples.minilm.model import INPUTS, export, tokenize
    except ImportError as error:
        raise GateformerError(
            f"{error.name} is not installed: pip install 'gateformer[{EXTRA}]'"
        ) from None
    from gateformer.examples.minilm.sentences import CALIBRATION, EVALUATION

    path, calibration = folder / "minilm.onnx", folder / "calibration.npz"
    export(path)
    np.savez(calibration, allow_pickle=False, **tokenize(CALIBRATION, tokens))
    options = Options({INPUTS[0]: (1, tokens)}, samples=batch)
    model, seconds = _compile(path, calibration, config, options)
    size = len(EVALUATION) // batch
    texts = [" ".join(EVALUATION[i * size : (i + 1) * size]) for i in range(batch)]
    arrays = tokenize(texts, tokens)
    assert arrays["attention_mask"].all()
    return Prepared(model, split_samples(arrays), seconds)


def _compile(
    path: Path, calibration: Path, config: AcceleratorConfig, options: Options | None = None
) -> tuple[CompiledModel, float]:
    start = time.perf_counter()
    model = compile(path, calibration, config, options)
    assert model is not None
    return model, time.perf_counter() - start


WORKS = (
    Work(
        "deit-tiny",
        "DeiT-Tiny, 12 layers, 197 tokens",
        "ecp5-85k",
        0.95,
        partial(random_weights, "deit-tiny", 12),
    ),
    Work(
        "bert-base",
        "BERT-base, 4 layers, 128 tokens",
        "ecp5-85k",
        0.95,
        partial(random_weights, "bert-base", 4),
    ),
    Work("minilm-128", "MiniLM, 128 tokens", "ecp5-85k", 0.95, partial(minilm, 128, 1)),
    Work("minilm-32", "MiniLM, 32 tokens", "ecp5-85k", 0.95, partial(minilm, 32, 1), of_bound=True),
    Work("minilm-4x32", "MiniLM, 4 x 32 tokens", "ecp5-85k", 0.88, partial(minilm, 32, 4)),
    Work(
        "attention",
        "attention alone, 197 tokens, 3 heads of 64, operands resident",
        "ecp5-85k",
        0.95,
        partial(random_weights, "attention", 1),
        changes=RESIDENT,
    ),
    Work(
        "deit-tiny-256",
        "DeiT-Tiny, 12 layers, 197 tokens",
        "ecp5-85k-256",
        0.93,
        partial(random_weights, "deit-tiny", 12),
    ),
    Work(
        "deit-tiny-256x2",
        "DeiT-Tiny, 12 layers, 197 tokens, 2 images in a batch",
        "ecp5-85k-256",
        0.93,
        partial(random_weights, "deit-tiny", 12, batch=2),
    ),
    Work(
        "deit-tiny-small",
        "DeiT-Tiny, 2 layers, 197 tokens",
        "small",
        0.93,
        partial(random_weights, "deit-tiny", 2),
    ),
)
"""Every row of the benchmark."""
