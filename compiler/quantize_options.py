"""The choices of quantization, each with the default that measurement picked
(docs/quantization.md)."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from gateformer.compiler.scales import ESTIMATORS, Estimator
from gateformer.spec.errors import ConfigError

Granularity = Literal["channel", "tensor"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)
HEADROOM_LIMIT = 16.0


@dataclass(frozen=True)
class QuantizationOptions:
    """How a float graph becomes integers. Raises ConfigError for a value that makes no sense."""

    estimator: Estimator = "mse"
    """How the ranges of int8 tensors are chosen from the calibration samples."""
    percentile: float = 99.99
    """Percent of the values that the estimator "percentile" covers."""
    smoothing: float | None = 0.5
    """Share of the ratio between channels that moves from activations into weights (alpha of
    SmoothQuant); None: no smoothing."""
    centering: bool = True
    """Whether each channel of a norm's int8 result is shifted to the middle of its range."""
    zero_points: bool = True
    """Whether int8 tensors that only weights meet may have a zero point."""
    weights: Granularity = "channel"
    """One scale for each output channel of a weight matrix, or one for all."""
    residual_bits: int | None = None
    """Bits of the residual stream that are used; None: all that the config has."""
    stream_headroom: float = 1.25
    """Range of the residual stream over what calibration saw."""
    scores_headroom: float = 1.25
    """Range of softmax's scores over what calibration saw: where the largest score of a row
    saturates, the row is lost, while a coarser step makes every probability a little less exact."""
    output_headroom: float = 1.5
    """Range of the model's outputs over what calibration saw."""

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ConfigError(f"estimator is {self.estimator!r}: one of {', '.join(ESTIMATORS)}")
        if self.weights not in GRANULARITIES:
            raise ConfigError(f"weights is {self.weights!r}: one of {', '.join(GRANULARITIES)}")
        self._between("percentile", 50.0, 100.0)
        if self.smoothing is not None:
            self._between("smoothing", 0.0, 1.0)
        if self.residual_bits is not None:
            self._between("residual_bits", 8, 16)
        for name in ("stream_headroom", "scores_headroom", "output_headroom"):
            self._between(name, 1.0, HEADROOM_LIMIT)

    def _between(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise ConfigError(f"{name} is {value}: it must be from {low:g} to {high:g}")
