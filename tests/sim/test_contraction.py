"""Integer products through floating point: exact at the longest contractions of either width."""

import numpy as np
import pytest

from gateformer.sim.contraction import FLOAT32_LENGTH, contract

SEED = 4


@pytest.mark.parametrize("k", [0, 1, FLOAT32_LENGTH, FLOAT32_LENGTH + 1, 4095])
def test_extremes(k: int) -> None:
    """The largest sums, and the largest but one: one more bit would round it."""
    a = np.full((3, k), -128, np.int8)
    b = a.copy()
    if k:
        b[:, -1] = -127
        b[0, 0] = 127
    expected = a.astype(np.int64) @ b.astype(np.int64).T
    result = contract(a, b)
    assert result.dtype == np.int64
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("k", [7, FLOAT32_LENGTH, 3072])
def test_random(k: int) -> None:
    print(f"seed {SEED}")
    random = np.random.default_rng(SEED)
    a, b = (random.integers(-128, 128, (rows, k), np.int8) for rows in (17, 23))
    assert np.array_equal(contract(a, b), a.astype(np.int64) @ b.astype(np.int64).T)
