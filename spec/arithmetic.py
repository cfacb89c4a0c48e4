"""The integer arithmetic that hardware, golden model and compiler share.

All functions take and return numpy integer arrays (or ints) and are exact. Rounding is always "add
half, shift right arithmetically"; saturation follows it.
"""

from typing import Any

import numpy as np

Integers = Any
"""An int or an integer ndarray; numpy's broadcasting applies."""

SCALE_SHIFTS = (16, 20, 24, 28)
"""Right shifts that a scale record's 2-bit selector chooses from."""
NORM_SHIFTS = (8, 12, 16, 20)
"""Right shifts of the norm's two outputs."""
SOFTMAX_MAX = 127
"""Numerator of a row's largest score."""
NORM_FRACTION = 10
"""Fractional bits of a normalized value before its gain."""
RSQRT_INDEX_BITS = 7


def round_shift(value: Integers, shift: Integers) -> Integers:
    """value / 2**shift rounded half up: add half, shift right arithmetically; shift >= 1."""
    value = np.asarray(value, np.int64)
    shift = np.asarray(shift, np.int64)
    return (value + (np.int64(1) << (shift - 1))) >> shift


def saturate(value: Integers, bits: int) -> Integers:
    """value limited to the range of a signed integer of `bits` bits."""
    top = (1 << (bits - 1)) - 1
    return np.clip(np.asarray(value, np.int64), -top - 1, top)


def wrap32(value: Integers) -> Integers:
    """value modulo 2**32 as a signed integer: what a 32-bit adder gives."""
    return np.asarray(value, np.int64).astype(np.int32).astype(np.int64)


def scale(total: Integers, multiplier: Integers, selector: Integers) -> Integers:
    """Requantization before saturation: round(total * multiplier / 2**SCALE_SHIFTS[selector]).

    total: int32; multiplier: 0..65535; selector: 0..3. The result fits 33 bits.
    """
    product = np.asarray(total, np.int64) * np.asarray(multiplier, np.int64)
    return round_shift(product, np.asarray(SCALE_SHIFTS, np.int64)[selector])


def encode_scale(value: float) -> tuple[int, int]:
    """The (multiplier, selector) nearest to a positive scale below 1, with most significant bits.

    Raises ValueError when the scale is not in [2**-29, 65535 / 2**16].
    """
    for selector in range(len(SCALE_SHIFTS) - 1, -1, -1):
        multiplier = round(value * 2.0 ** SCALE_SHIFTS[selector])
        if 0 < multiplier <= 65535:
            return multiplier, selector
    raise ValueError(f"scale {value} is outside what a record can hold")


def residual_add(value: Integers, residual: Integers, bits: int) -> Integers:
    """Adds two codes of one scale and saturates to the residual stream's width."""
    return saturate(np.asarray(value, np.int64) + residual, bits)


def softmax_row(
    scores: np.ndarray, bound: Integers, table: np.ndarray
) -> tuple[np.ndarray, Integers]:
    """Un-normalized softmax of int8 rows [..., n].

    Of each row the first `bound` scores (one number, or one a row [...]) count; the numerators of
    the others are 0. table[d] is the numerator of a score d below the largest, table[0] = 127.
    Returns (numerators int64 [..., n], their sums int64 [...]); for bound 0 the sum is 0.
    """
    wide = scores.astype(np.int64)
    counts = np.arange(scores.shape[-1]) < np.asarray(bound)[..., None]
    largest = np.max(wide, axis=-1, keepdims=True, where=counts, initial=-128)
    numerators = np.where(counts, table[np.maximum(largest - wide, 0)], 0).astype(np.int64)
    return numerators, numerators.sum(axis=-1)


def reciprocal(numerator: int, total: Integers) -> tuple[Integers, Integers]:
    """The scale records (multiplier, selector) of numerator / total * 2**-28.

    numerator: 32 bits; total: the rows' sums. The quotient is cut (not rounded), then as many
    groups of 4 low bits are cut off as are needed for at most 16 bits, at most three groups; what
    is still larger saturates to 65535. A sum of 0 gives (0, 3).
    """
    sums = np.asarray(total, np.int64)
    quotient = np.where(sums > 0, numerator // np.maximum(sums, 1), 0)
    cut = sum((quotient >= np.int64(1) << bits).astype(np.int64) for bits in (16, 20, 24))
    return np.minimum(quotient >> (4 * cut), 65535), 3 - cut


def rsqrt_table() -> np.ndarray:
    """128 entries, 16 bits: round(2**16 / sqrt(m)) - 1 at the middle of each interval of m.

    Entry i stands for mantissas m in [i/32, (i+1)/32); only i >= 32 (m in [1, 4)) is used, the
    others are 0.
    """
    index = np.arange(128)
    middle = (index + 0.5) / 32
    values = np.rint(65536 / np.sqrt(middle)) - 1
    return np.where(index >= 32, values, 0).astype(np.int64)


_RSQRT_TABLE = rsqrt_table()


def rsqrt(value: Integers) -> tuple[Integers, Integers]:
    """(r, e) with r * 2**-16 * 2**-e close to 1 / sqrt(value); 1 <= value < 2**53, r of at most
    16 bits.

    value = m * 4**e with m in [1, 4): the mantissa is cut to 16 bits (2 integer, 14 fractional),
    the table gives r0 from its 7 high bits, and one Newton step r = r0 * (3 - m * r0**2) / 2
    follows: t = (m * ((r0 * r0) >> 16)) >> 14 (16 fractional bits), r = (r0 * (3 * 2**16 - t)) >>
    17, limited to 65535.
    """
    value = np.asarray(value, np.int64)
    # float64 holds every integer below 2**53: its exponent is the bit length.
    e = (np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1) // 2
    m = np.where(e <= 7, value << np.maximum(14 - 2 * e, 0), value >> np.maximum(2 * e - 14, 0))
    r0 = _RSQRT_TABLE[m >> 9]
    t = (m * ((r0 * r0) >> 16)) >> 14
    return np.minimum((r0 * (3 * 65536 - t)) >> 17, 65535), e


def normalize_row(codes: np.ndarray, epsilon: int) -> np.ndarray:
    """LayerNorm rows [..., C] before gain and bias: int16 codes with NORM_FRACTION fractional bits.

    With C columns, S = sum, Q = sum of squares: D = C * Q - S**2 + epsilon, at least 1;
    (r, e) = rsqrt(D). The shift from (C * x - S) * r to the result is s = 16 + e - NORM_FRACTION.
    To need only shifts by multiples of 4, r is first cut by f = s mod 4 bits:
    n = saturate16(round_shift((C * x - S) * (r >> f), s - f)).
    """
    x = codes.astype(np.int64)
    count = x.shape[-1]
    total = x.sum(axis=-1, keepdims=True)
    squares = (x * x).sum(axis=-1, keepdims=True)
    r, e = rsqrt(np.maximum(count * squares - total * total + epsilon, 1))
    s = 16 + e - NORM_FRACTION
    f = s % 4
    return saturate(round_shift((count * x - total) * (r >> f), s - f), 16)


def gain(
    normalized: Integers, gains: Integers, biases: Integers, shift: int, bits: int
) -> Integers:
    """One norm output: saturate(round_shift(n * gain + bias, shift), bits).

    gains: int16; biases: int32 at the scale before the shift; shift: one of NORM_SHIFTS.
    """
    product = np.asarray(normalized, np.int64) * gains + biases
    return saturate(round_shift(product, shift), bits)


def pack_scale_records(biases: Integers, multipliers: Integers, selectors: Integers) -> np.ndarray:
    """Scale records of 8 bytes: int32 bias, uint16 multiplier, uint8 selector, zero. [n, 8]
    uint8."""
    biases, multipliers, selectors = np.broadcast_arrays(biases, multipliers, selectors)
    kind = np.dtype([("b", "<i4"), ("m", "<u2"), ("s", "u1"), ("z", "u1")])
    records = np.zeros(len(biases), kind)
    records["b"], records["m"], records["s"] = biases, multipliers, selectors
    return records.view(np.uint8).reshape(-1, 8)


def pack_gain_records(gains: Integers, biases: Integers) -> np.ndarray:
    """Gain records of 8 bytes: int16 gain, 2 zero bytes, int32 bias. [n, 8] uint8."""
    kind = np.dtype([("g", "<i2"), ("z", "<i2"), ("b", "<i4")])
    records = np.zeros(len(gains), kind)
    records["g"], records["b"] = gains, biases
    return records.view(np.uint8).reshape(-1, 8)


def activation_index(code: Integers, bits: int) -> Integers:
    """The table entry of an activation code: its `bits` bits as an unsigned number."""
    return np.asarray(code, np.int64) & ((1 << bits) - 1)


def polynomial_gelu(
    codes: Integers, bound: int, one: int, multiplier: int, selector: int, zero: int
) -> Integers:
    """I-BERT's integer GELU (Kim et al. 2021, algorithms 1 and 2) and its requantization to int8.

    codes: activation_bits wide, of scale S. bound = floor(1.769 * sqrt(2) / S), 12 bits; one =
    floor(2 / (0.2888 * S**2)), the integer of 1 at the scale of the polynomial, 20 bits unsigned.
    erf(q * S / sqrt(2)) is e / one with e = sign(q) * (one - (bound - min(|q|, bound))**2), and
    result = saturate8(scale(q * (e + one), multiplier, selector) + zero).
    """
    q = np.asarray(codes, np.int64)
    gap = bound - np.minimum(np.abs(q), bound)
    erf = np.sign(q) * (one - gap * gap)
    return saturate(scale(wrap32(q * (erf + one)), multiplier, selector) + zero, 8)


def pack_polynomial(bound: int, one: int, multiplier: int, selector: int, zero: int) -> np.ndarray:
    """The polynomial's 24 parameter bytes: uint32 bound, one, multiplier, selector; int32 zero;
    0."""
    words = np.array([bound, one, multiplier, selector, zero & 0xFFFFFFFF, 0], "<u4")
    return words.view(np.uint8)
