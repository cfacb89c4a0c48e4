"""Ranges of a graph's tensors over sample inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gateformer.compiler.float_execution import Stage, run_float
from gateformer.compiler.graph import Gemm, Graph, Role
from gateformer.compiler.host_execution import HostRunner
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
    count = check_samples(graph, samples)
    random = np.random.default_rng(SEED)
    keep = max(KEPT // count, 64)
    result = Calibration({}, {}, {})
    kinds = {"activation": result.activations, "residual": result.residuals}

    def observe(op: Gemm, stage: Stage, values: np.ndarray) -> None:
        kinds[stage].setdefault(op.name, Statistics()).add(values, keep, random)

    host = HostRunner(graph.host.before)
    for index in range(count):
        inputs = host.run({name: array[index] for name, array in samples.items()})
        for name, values in run_float(graph, inputs, observe).items():
            if graph.tensors[name].role == Role.CONSTANT:
                continue
            if not np.isfinite(values).all():
                raise DataError(f"calibration sample {index} gives NaN or infinity in {name!r}")
            result.tensors.setdefault(name, Statistics()).add(values, keep, random)
    return result


def check_samples(graph: Graph, samples: Mapping[str, np.ndarray]) -> int:
    """The number of samples. Raises DataError as `calibrate` does."""
    expected = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in graph.host.before.graph.input
    }
    listing = ", ".join(f"{name!r} [samples, {_dims(dims)}]" for name, dims in expected.items())
    if set(samples) != set(expected):
        raise DataError(f"calibration arrays are {sorted(samples)}; expected {listing}")
    counts = set()
    for name, shape in expected.items():
        array = np.asarray(samples[name])
        if array.dtype.kind not in "fiub" or array.shape[1:] != shape or array.ndim == 0:
            raise DataError(
                f"calibration array {name!r} is {array.dtype} {list(array.shape)}; expected {listing}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"calibration array {name!r} holds NaN or infinity")
        counts.add(len(array))
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"calibration arrays hold {sorted(counts)} samples; all need the same, >= 1")
    return counts.pop()


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
