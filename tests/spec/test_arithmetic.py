"""The integer arithmetic against its definition in exact rationals and floats."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from gateformer.spec import arithmetic as a


@given(st.integers(-(1 << 48), 1 << 48), st.integers(1, 40))
def test_rounding_is_half_up(value, shift):
    assert int(a.round_shift(value, shift)) == floor(Fraction(value, 1 << shift) + Fraction(1, 2))


@given(st.integers(-(1 << 40), 1 << 40), st.integers(2, 32))
def test_saturation_keeps_the_range(value, bits):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert int(a.saturate(value, bits)) == min(max(value, low), high)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 65535), st.integers(0, 3))
def test_scaling_rounds_once(total, multiplier, selector):
    exact = Fraction(total * multiplier, 1 << a.SCALE_SHIFTS[selector])
    assert int(a.scale(total, multiplier, selector)) == floor(exact + Fraction(1, 2))


@given(st.floats(2.0**-14, 0.999))
def test_a_scale_is_encoded_to_a_part_in_8000(value):
    multiplier, selector = a.encode_scale(value)
    got = multiplier / 2.0 ** a.SCALE_SHIFTS[selector]
    assert abs(got / value - 1) <= 2**-12


@pytest.mark.parametrize("value", [0.0, -0.1, 1.0, 2.0**-31])
def test_a_scale_that_no_record_holds_is_refused(value):
    with pytest.raises(ValueError, match="scale"):
        a.encode_scale(value)


@given(st.integers(1, (1 << 32) - 1), st.integers(1, 127 * 4095))
def test_the_reciprocal_is_close_and_fits(numerator, total):
    multiplier, selector = a.reciprocal(numerator, total)
    assert 0 <= multiplier <= 65535
    exact = numerator / total / 2**28
    got = multiplier / 2.0 ** a.SCALE_SHIFTS[selector]
    if exact < 65535 / 65536:
        assert got <= exact
        assert exact - got <= max(exact / 4096, 2.0**-28)


def test_reciprocal_corners():
    assert a.reciprocal(5, 0) == (0, 3)
    assert a.reciprocal((1 << 32) - 1, 1) == (65535, 0)
    assert a.reciprocal(127 << 8, 127) == (256, 3)


@pytest.mark.parametrize("value", [1, 2, 3, 4, 5, 15, 16, 17, 1000, 2**20 + 3, 2**49 + 12345])
def test_the_reciprocal_square_root_is_close(value):
    r, e = a.rsqrt(value)
    assert abs(r * 2.0**-16 * 2.0**-e * np.sqrt(value) - 1) < 3e-4


def test_softmax_ignores_what_lies_beyond_the_bound():
    table = np.rint(127 * np.exp(-0.05 * np.arange(256))).astype(np.int64)
    scores = np.array([3, 7, -128, 127, 50])
    numerators, total = a.softmax_row(scores, 3, table)
    assert numerators.tolist() == [table[4], 127, table[135], 0, 0]
    assert total == numerators.sum()
    assert a.softmax_row(scores, 0, table)[1] == 0


def test_a_row_without_variance_normalizes_to_zero():
    assert not a.normalize_row(np.full(48, 1234), 0).any()


@pytest.mark.parametrize("bits", [8, 10])
def test_the_polynomial_gelu_is_close_to_gelu(bits):
    """I-BERT (section 4.3) states a largest error of 0.018 for its GELU."""
    scale = 8 / (1 << bits)
    codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    bound = floor(1.769 * np.sqrt(2) / scale)
    one = floor(2 / (0.2888 * scale**2))
    out_scale = 4 / 255
    multiplier, selector = a.encode_scale(scale / (2 * one) / out_scale)
    got = a.polynomial_gelu(codes, bound, one, multiplier, selector, -117)
    x = codes * scale
    exact = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    error = np.abs((got + 117) * out_scale - exact)
    assert error[x < 3.8].max() <= 0.018 + 2 * out_scale / 2 + scale


def test_records_are_packed_as_documented():
    record = a.pack_scale_records(np.array([-2]), np.array([65535]), np.array([3]))[0]
    assert record.tolist() == [254, 255, 255, 255, 255, 255, 3, 0]
    gain = a.pack_gain_records(np.array([-1]), np.array([65536]))[0]
    assert gain.tolist() == [255, 255, 0, 0, 0, 0, 1, 0]
