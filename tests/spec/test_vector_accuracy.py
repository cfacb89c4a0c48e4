"""How close the integer softmax and LayerNorm come to the float functions of the same inputs."""

import numpy as np
import pytest

from gateformer.spec import arithmetic

SEED = 2024
LENGTH = 64
ROWS = 400
CODE_SCALE = 0.02
"""Real value of a residual code of 1: a stream of deviation 1 has codes of deviation 50."""


def _softmax_error(rng: np.random.Generator, scale: float) -> float:
    """Largest error of a probability over ROWS rows of N(0, 1) logits quantized by `scale`."""
    table = np.rint(127 * np.exp(-scale * np.arange(256))).astype(np.int64)
    codes = np.rint(rng.normal(size=(ROWS, LENGTH)) / scale).clip(-128, 127).astype(np.int8)
    # The reciprocal of a row also carries a factor of the next product: 2**-4 here.
    factor = 2.0**-4
    numerator = round(factor * 2**28)
    worst = 0.0
    for row in codes:
        numerators, total = arithmetic.softmax_row(row, LENGTH, table)
        multiplier, selector = arithmetic.reciprocal(numerator, total)
        probabilities = numerators * multiplier / 2.0 ** arithmetic.SCALE_SHIFTS[selector] / factor
        exact = np.exp(scale * (row.astype(float) - row.max()))
        worst = max(worst, float(np.abs(probabilities - exact / exact.sum()).max()))
    return worst


@pytest.mark.parametrize("largest", [4.0, 5.0, 8.0])
def test_softmax_probabilities(largest: float) -> None:
    """Error of a probability <= 0.006. largest: the logit of code 127."""
    error = _softmax_error(np.random.default_rng(SEED), largest / 127)
    print(f"logits up to {largest}: largest error {error:.5f}")
    assert error <= 0.006


def _norm_outputs(
    rng: np.random.Generator, channels: int, rows: int, deviation: float
) -> tuple[np.ndarray, np.ndarray]:
    """int8 outputs of the specification, and of float LayerNorm, for the same int16 codes."""
    means = rng.normal(0, 0.3 * deviation, (rows, 1))
    spread = deviation * 2 ** rng.uniform(-1, 1, (rows, 1))
    codes = np.rint(means + spread * rng.normal(size=(rows, channels)))
    codes = codes.clip(-32768, 32767).astype(np.int16)
    gamma = rng.uniform(0.3, 1.5, channels)
    beta = rng.normal(0, 0.2, channels)
    epsilon = 1e-5
    output_scale = 5.0 / 127

    x = codes * CODE_SCALE
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + epsilon)
    exact = np.rint((normal * gamma + beta) / output_scale).clip(-128, 127)

    # The largest shift at which gains fit 16 bits and biases 32.
    real = gamma / output_scale / 2**arithmetic.NORM_FRACTION
    shift = max(s for s in arithmetic.NORM_SHIFTS if np.abs(real * 2.0**s).max() < 32767)
    gains = np.rint(real * 2.0**shift).astype(np.int64)
    biases = np.rint(beta / output_scale * 2.0**shift).astype(np.int64)
    epsilon_codes = round(channels**2 * epsilon / CODE_SCALE**2)
    outputs = [
        arithmetic.gain(arithmetic.normalize_row(row, epsilon_codes), gains, biases, shift, 8)
        for row in codes
    ]
    return np.array(outputs), exact


@pytest.mark.parametrize("deviation", [50, 800, 6000])
@pytest.mark.parametrize("channels", [48, 192, 384, 768])
def test_layer_norm_codes(channels: int, deviation: float) -> None:
    """int8 outputs differ by at most 1, in less than 3 % of them. deviation: of the codes."""
    rng = np.random.default_rng(SEED + channels)
    outputs, exact = _norm_outputs(rng, channels, 40_000 // channels, deviation)
    difference = np.abs(outputs - exact)
    print(f"{channels} channels, deviation {deviation}: {np.mean(difference > 0):.2%} differ")
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.03
