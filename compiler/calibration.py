"""Ranges of a graph's tensors over sample inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gateformer.compiler.float_execution import Stage, run_float
from gateformer.compiler.graph import Gemm, Graph, Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.samples import check_samples, split_samples
from gateformer.spec.errors import DataError

KEPT = 16384
"""Values of a tensor that are kept for choosing its scale, drawn evenly from all samples."""
SEED = 0


@dataclass
class Statistics:
    """Exact limits of all values seen, and a random selection of them."""

    low: float = np.inf
    high: float = -np.inf
    chunks: list[np.ndarray] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def values(self) -> np.ndarray:
        """The selection, with both limits."""
        return np.concatenate([*self.chunks, [self.low, self.high]])

    def add(self, values: np.ndarray, keep: int, random: np.random.Generator) -> None:
        flat = values.ravel()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.chunks.append(flat if flat.size <= keep else random.choice(flat, keep))


@dataclass(frozen=True)
class Calibration:
    """tensors: of every tensor but constants. activations: of what goes into the activation of an
    operation, by its name. residuals: of what a residual is added to, by the operation's name."""

    tensors: dict[str, Statistics]
    activations: dict[str, Statistics]
    residuals: dict[str, Statistics]


def calibrate(graph: Graph, samples: Mapping[str, np.ndarray]) -> Calibration:
    """Runs the float graph on every sample.

    samples: one array for each input of the ONNX model, by its name, [samples, *shape of the
    input]. Raises DataError when names, shapes or types do not fit or a value is not finite.
    """
    host = HostRunner(graph.host.before)
    check_samples(samples, host.inputs, source="calibration")
    inputs_of = split_samples(samples)
    random = np.random.default_rng(SEED)
    keep = max(KEPT // len(inputs_of), 64)
    result = Calibration({}, {}, {})
    kinds = {"activation": result.activations, "residual": result.residuals}

    def observe(op: Gemm, stage: Stage, values: np.ndarray) -> None:
        kinds[stage].setdefault(op.name, Statistics()).add(values, keep, random)

    for index, inputs in enumerate(inputs_of):
        for name, values in run_float(graph, host.run(inputs), observe).items():
            if graph.tensors[name].role == Role.CONSTANT:
                continue
            if not np.isfinite(values).all():
                raise DataError(f"calibration sample {index} gives NaN or infinity in {name!r}")
            result.tensors.setdefault(name, Statistics()).add(values, keep, random)
    return result
