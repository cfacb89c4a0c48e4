"""Ranges of a graph's tensors over sample inputs, channel by channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from gateformer.compiler.float_execution import Stage, counted, run_float
from gateformer.compiler.graph import Gemm, Graph, Role, View, whole
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.runtime_length import length_of
from gateformer.compiler.samples import check_samples, split_samples
from gateformer.spec.errors import DataError

KEPT = 16384
"""Values of a tensor that are kept for choosing its scale, drawn evenly from all samples."""
SEED = 0


@dataclass
class Statistics:
    """Exact limits of each channel over all values seen, and a random selection of them.

    axis: along which the channels lie: 1, columns; 0, rows, for a transposed result; None where
    the tensor has one channel only, since both axes are tokens.
    """

    axis: int | None = 1
    lows: np.ndarray = field(default_factory=lambda: np.array([np.inf]))
    highs: np.ndarray = field(default_factory=lambda: np.array([-np.inf]))
    """[channels]"""
    chunks: list[np.ndarray] = field(default_factory=list)
    channels: list[np.ndarray] = field(default_factory=list)
    """The channel of each value in `chunks`."""
    count: int = 0
    """Values seen of each channel."""

    @property
    def low(self) -> float:
        return float(self.lows.min())

    @property
    def high(self) -> float:
        return float(self.highs.max())

    @property
    def limit(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def limits(self) -> np.ndarray:
        """The largest magnitude of each channel."""
        return np.maximum(np.abs(self.lows), np.abs(self.highs))

    @property
    def values(self) -> np.ndarray:
        """The selection, with both limits."""
        return np.concatenate([*self.chunks, [self.low, self.high]])

    def add(self, values: np.ndarray, keep: int, random: np.random.Generator) -> None:
        """Takes in a matrix; of its values at most `keep` are kept."""
        across = None if self.axis is None else 1 - self.axis
        self.lows = np.minimum(self.lows, values.min(axis=across))
        self.highs = np.maximum(self.highs, values.max(axis=across))
        self.count += values.size // len(self.lows)
        flat = np.arange(values.size)
        if values.size > keep:
            flat = random.integers(0, values.size, keep)
        self.chunks.append(values.reshape(-1)[flat])
        channels = np.unravel_index(flat, values.shape)[self.axis or 0]
        self.channels.append(channels.astype(np.int32))

    def mapped(self, factors: np.ndarray, offsets: np.ndarray) -> "Statistics":
        """The statistics of (values - offset) / factor, one factor and offset a channel."""
        chunks = [
            (values - offsets[channel]) / factors[channel]
            for values, channel in zip(self.chunks, self.channels, strict=True)
        ]
        lows, highs = (self.lows - offsets) / factors, (self.highs - offsets) / factors
        return Statistics(self.axis, lows, highs, chunks, self.channels, self.count)


def statistics_of(data: np.ndarray) -> Statistics:
    """All values of a constant."""
    result = Statistics()
    result.add(data, data.size, np.random.default_rng(SEED))
    return result


@dataclass(frozen=True)
class Calibration:
    """tensors: of every tensor but constants. activations: of what goes into the activation of an
    operation, by its name. residuals: of what a residual is added to, by the operation's name."""

    tensors: dict[str, Statistics]
    activations: dict[str, Statistics]
    residuals: dict[str, Statistics]


def calibrate(graph: Graph, samples: Mapping[str, np.ndarray]) -> Calibration:
    """Runs the float graph on every sample; only tokens that its masks count are looked at.

    samples: one array for each input of the ONNX model, by its name, [samples, *shape of the
    input]. Raises DataError when names, shapes or types do not fit, a value is not finite, or a
    mask is none that the accelerator can run.
    """
    host = HostRunner(graph.host.before)
    check_samples(samples, host.inputs, source="calibration")
    inputs_of = split_samples(samples)
    random = np.random.default_rng(SEED)
    keep = max(KEPT // len(inputs_of), 64)
    result = Calibration({}, {}, {})
    kinds = {"activation": result.activations, "residual": result.residuals}
    transposed = _transposed(graph)

    def observe(op: Gemm, stage: Stage, values: np.ndarray) -> None:
        kinds[stage].setdefault(op.name, Statistics()).add(values, keep, random)

    for index, inputs in enumerate(inputs_of):
        matrices = host.run(inputs)
        length = sample_length(graph, matrices)
        # Products this small lose more to the start of threads, and to their waiting for a core
        # that is busy, than they win.
        with threadpool_limits(1):
            tensors = run_float(graph, matrices, observe, length, short=True)
        for name, values in tensors.items():
            tensor = graph.tensors[name]
            if tensor.role == Role.CONSTANT:
                continue
            seen = counted(tensor, whole(tensor), values, length)
            if not np.isfinite(seen).all():
                raise DataError(f"calibration sample {index} gives NaN or infinity in {name!r}")
            if seen.size:
                axis = 0 if name in transposed else None if tensor.col_tokens else 1
                result.tensors.setdefault(name, Statistics(axis)).add(seen, keep, random)
    return result


def sample_length(graph: Graph, matrices: Mapping[str, np.ndarray]) -> int | None:
    """How many tokens of a sample count by what host.before gives; None where none can be cut."""
    if graph.tokens is None:
        return None
    masks = {name: matrices[name] for name in graph.masks}
    return length_of(masks, graph.tokens, graph.least_tokens)


def _transposed(graph: Graph) -> set[str]:
    """Tensors whose channels are rows: products with weights as their left operand."""

    def constant(view: View) -> bool:
        return graph.tensors[view.tensor].role == Role.CONSTANT

    gemms = (op for op in graph.operations if isinstance(op, Gemm))
    return {op.out.tensor for op in gemms if constant(op.a) and not constant(op.b)}
