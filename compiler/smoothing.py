"""Moves the differences between channels from norms' int8 results into the weights that read them.

Factors are those of SmoothQuant (Xiao et al. 2022, section 4: migration strength alpha), offsets
those of Outlier Suppression+ (Wei et al. 2023, section 3: channel-wise shifting). Both are exact
in real numbers and cost nothing at run time: a factor divides the gain of the norm's int8 output
and multiplies the weights' columns, an offset goes off the norm's int8 bias and, times the weights,
into the product's bias. The norm's int16 output has gains of its own and stays as it is.
"""

import numpy as np

from gateformer.compiler.calibration import Calibration, Statistics
from gateformer.compiler.graph import Gemm, Norm
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantized import ChannelMap

LEAST_COUNT = 256
"""Values of a channel without which its range is not trusted: the factors of a few would make
others saturate."""


def smooth(
    form: IntegerForm, calibration: Calibration, alpha: float | None, centering: bool
) -> dict[str, ChannelMap]:
    """The channel maps of the norms' int8 results, by tensor; none where calibration saw little.

    alpha: 1 gives all channels the same range, 0 all columns of the weights; None: no factors.
    centering: whether offsets put the middle of every channel's range to 0.
    """
    result = {}
    for name, weights in _readers(form).items():
        statistics = calibration.tensors[name]
        if statistics.count < LEAST_COUNT:
            continue
        offsets = (statistics.lows + statistics.highs) / 2 if centering else 0 * statistics.lows
        factors = np.ones_like(offsets)
        if alpha is not None:
            factors = _factors(statistics, offsets, weights, alpha)
        result[name] = ChannelMap(factors, offsets)
    return result


def _readers(form: IntegerForm) -> dict[str, np.ndarray]:
    """Of every tensor that can be smoothed, the largest weight of each channel in all products that
    read it: those that norms alone write, and that only meet weights, channel by channel."""
    written = {op.target.tensor for op in form.graph.operations if isinstance(op, Norm)}
    others = (op for op in form.graph.operations if not isinstance(op, Norm))
    written -= {op.out.tensor if isinstance(op, Gemm) else op.target.tensor for op in others}
    largest: dict[str, np.ndarray] = {}
    for op in form.gemms:
        if form.weights(op) is None or not form.follows(op):
            written -= {op.a.tensor, op.b.tensor}
            continue
        name = form.other(op).tensor
        if name in written:
            limits = np.abs(form.block(op)).max(axis=0)
            largest[name] = np.maximum(largest.get(name, 0), limits)
    return {
        name: limits
        for name, limits in largest.items()
        if name in written and len(limits) == form.graph.tensors[name].cols
    }


def _factors(
    statistics: Statistics, offsets: np.ndarray, weights: np.ndarray, alpha: float
) -> np.ndarray:
    """One for each channel, with a geometric mean of 1."""
    ranges = np.maximum(statistics.highs - offsets, offsets - statistics.lows)
    used = (ranges > 0) & (weights > 0)
    factors = np.ones_like(ranges)
    factors[used] = ranges[used] ** alpha / weights[used] ** (1 - alpha)
    return factors / np.exp(np.log(factors[used]).mean()) if used.any() else factors
