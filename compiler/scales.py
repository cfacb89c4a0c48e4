"""Chooses scales: how much of a tensor's range its integer codes cover."""

from typing import Literal, get_args

import numpy as np

from gateformer.compiler.activations import Function
from gateformer.compiler.calibration import Statistics
from gateformer.spec import arithmetic

Estimator = Literal["minmax", "percentile", "mse"]
"""minmax: all of the range. percentile: a share of the values. mse: what makes the mean square
error smallest."""
ESTIMATORS: tuple[str, ...] = get_args(Estimator)
CANDIDATES = np.linspace(1.0, 0.3, 29)
"""Shares of the range that the search for the least error tries."""


def positive(limit: float) -> float:
    """The limit; 1 for a tensor that is zero everywhere, which any scale suits."""
    return limit if limit > 0 else 1.0


def symmetric_scale(
    statistics: Statistics, bits: int, estimator: Estimator, percentile: float = 100.0
) -> float:
    """The scale of codes around zero."""
    top = (1 << (bits - 1)) - 1
    limit = positive(statistics.limit)
    if estimator == "minmax":
        return limit / top
    values = statistics.values
    if estimator == "percentile":
        return positive(float(np.percentile(np.abs(values), percentile))) / top
    candidates = [(float(limit * share / top), 0) for share in CANDIDATES]
    return _least_error(values, candidates, -top - 1, top)[0]


def affine_scale(
    statistics: Statistics, estimator: Estimator, percentile: float = 100.0
) -> tuple[float, int]:
    """Scale and zero point of int8 codes; 0.0 is a code."""
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    if estimator == "minmax":
        return _affine(low, high)
    values = statistics.values
    if estimator == "percentile":
        low = min(float(np.percentile(values, 100 - percentile)), 0.0)
        high = max(float(np.percentile(values, percentile)), 0.0)
        return _affine(low, high)
    candidates = [_affine(float(low * share), float(high * share)) for share in CANDIDATES]
    return _least_error(values, candidates, -128, 127)


def _affine(low: float, high: float) -> tuple[float, int]:
    scale = positive(high - low) / 255
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))


def _least_error(
    values: np.ndarray, candidates: list[tuple[float, int]], bottom: int, top: int
) -> tuple[float, int]:
    errors = [
        np.square(scale * (np.clip(np.rint(values / scale) + zero, bottom, top) - zero) - values)
        for scale, zero in candidates
    ]
    return candidates[int(np.argmin([error.mean() for error in errors]))]


def activation_table(
    function: Function, input_scale: float, scale: float, zero: int, bits: int
) -> np.ndarray:
    """The int8 entries of an activation, each at its code's bits as an unsigned number."""
    codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    entries = np.empty(len(codes), np.int8)
    values = np.rint(function(codes * input_scale) / scale).astype(np.int64) + zero
    entries[arithmetic.activation_index(codes, bits)] = arithmetic.saturate(values, 8)
    return entries


def activation_input_scale(
    statistics: Statistics, function: Function, scale: float, zero: int, bits: int
) -> float:
    """The scale of the codes that go into an activation: what makes its int8 output most exact."""
    top = (1 << (bits - 1)) - 1
    values = statistics.values
    exact = function(values)
    limit = positive(statistics.limit)
    best, least = limit / top, np.inf
    for share in (*CANDIDATES, *CANDIDATES * 0.3):
        candidate = float(limit * share / top)
        codes = np.clip(np.rint(values / candidate), -top - 1, top)
        outputs = np.clip(np.rint(function(codes * candidate) / scale) + zero, -128, 127) - zero
        error = float(np.square(outputs * scale - exact).mean())
        if error < least:
            best, least = candidate, error
    return best


def exp_table(scale: float) -> np.ndarray:
    """The softmax numerators, int8, of scores d = 0..255 codes below the row's largest."""
    return np.rint(arithmetic.SOFTMAX_MAX * np.exp(-scale * np.arange(256))).astype(np.int8)
