"""The integer products of the golden models."""

import numpy as np

FLOAT32_LENGTH = 1024
"""Longest contraction whose sums all fit the 24 bits of a float32's significand."""


def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [m, k] times b [n, k] transposed, int8 in, int64 out.

    Computed by BLAS in floating point, for its speed, and exact: every product of two int8 is an
    integer of at most 2**14, so every sum of some of the k products, whatever the order, is an
    integer of at most k * 2**14. Floating point of p bits holds all integers up to 2**p. So nothing
    is ever rounded in float32 (24 bits) where k <= 1024, nor in float64 (53 bits) for any k that
    there is.
    """
    kind = np.float32 if a.shape[1] <= FLOAT32_LENGTH else np.float64
    return (a.astype(kind) @ b.T.astype(kind)).astype(np.int64)
