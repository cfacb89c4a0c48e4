"""Activation tables against the function in exact arithmetic."""

from fractions import Fraction
from math import erf, floor, sqrt

import numpy as np
import pytest

from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.scales import activation_table


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("limit", [2.0, 4.0, 8.0])
def test_the_gelu_table_is_exact(bits, limit):
    """Every entry is the nearest int8 code of GELU at its code: 0 LSB off, all codes."""
    half = 1 << (bits - 1)
    scale, out_scale, zero = limit / half, (limit + 0.17) / 255, -117
    table = activation_table(ACTIVATIONS["gelu"], scale, out_scale, zero, bits)
    assert table.dtype == np.int8
    assert len(table) == 2 * half
    for code in range(-half, half):
        x = code * scale
        exact = x * (1 + erf(x / sqrt(2))) / 2 / out_scale
        nearest = floor(Fraction(exact) + Fraction(1, 2)) + zero
        assert table[code % (2 * half)] == min(max(nearest, -128), 127)
