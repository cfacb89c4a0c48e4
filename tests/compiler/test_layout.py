"""Layouts against the bytes that they pack."""

import numpy as np
import pytest

from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout
from gateformer.compiler.quantized import QTensor

SHAPES = [
    # rows, segments, segment, kind, word_bytes
    (3, 1, 5, "int8", 8),
    (2, 3, 5, "int8", 8),
    (2, 4, 8, "int8", 8),
    (5, 2, 12, "int8", 16),
    (3, 2, 3, "int16", 8),
    (2, 1, 7, "int32", 16),
]


def layout(rows, segments, segment, kind, word_bytes):
    tensor = QTensor("t", rows, segments * segment, Role.VALUE, segment, kind)
    return Layout.of(tensor, word_bytes)


def positions(shape):
    """Element position in the packed bytes of every code: [rows, cols]."""
    rows, segments, segment, *_ = shape
    one = layout(*shape)
    cols = segments * segment
    found = np.zeros((rows, cols), int)
    for row in range(rows):
        for col in range(cols):
            codes = np.zeros((rows, cols), int)
            codes[row, col] = -1
            found[row, col] = np.flatnonzero(one.pack(codes))[0] // one.element_bytes
    return one, found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_views_lie_where_the_layout_says(shape):
    one, found = positions(shape)
    rows, segments, segment, _, word_bytes = shape
    word = word_bytes // one.element_bytes
    views = [(0, segments * segment)] + [(s * segment, segment) for s in range(segments)]
    for col, cols in views:
        view = View("t", 1, rows - 1, col, cols)
        part = found[1:, col : col + cols]
        first = part[:, :1]
        assert np.array_equal(part - first, np.tile(one.physical_columns(view), (rows - 1, 1)))
        assert (part[:, -1] - part[:, 0] + 1 == one.view_elements(view)).all()
        assert one.word_of(1, col) * word == part[0, 0]
    assert one.words * word >= found.max() + 1 > (one.words - 1) * word


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unpack_reverses_pack(shape):
    rows, segments, segment, *_ = shape
    one = layout(*shape)
    limit = 1 << (8 * one.element_bytes - 1)
    codes = np.random.default_rng(1).integers(-limit, limit, (rows, segments * segment))
    assert np.array_equal(one.unpack(one.pack(codes)), codes)


def test_records_are_dense():
    one = layout(5, 1, 1, "record", 16)
    assert (one.words, one.words_of_rows(2), one.word_of(4, 0)) == (3, 1, 2)
