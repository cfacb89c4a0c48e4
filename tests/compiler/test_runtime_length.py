"""Attention masks as runtime lengths: prefixes of ones run, everything else is refused."""

import numpy as np
import pytest

from gateformer.compiler.runtime_length import length_of
from gateformer.spec.errors import DataError


def additive(kept, dtype=np.float32):
    return np.where(kept, 0, np.finfo(dtype).min).astype(dtype)


def prefix(length, tokens=6):
    return np.arange(tokens) < length


@pytest.mark.parametrize("length", [1, 5, 6])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 1, 6), (1, 1, 6, 6), (1, 3, 6, 6)])
def test_a_prefix_is_its_length(length, shape):
    mask = np.broadcast_to(prefix(length), shape)
    assert length_of({"m": mask}, 6, 1) == length
    assert length_of({"m": additive(mask)}, 6, 1) == length
    assert length_of({"m": np.where(mask, 0.0, -np.inf)}, 6, 1) == length


def test_no_mask_is_full_length():
    assert length_of({}, 9, 1) == 9


def test_queries_beyond_the_length_do_not_matter():
    square = np.outer(prefix(4), prefix(4))
    assert length_of({"m": square[None, None]}, 6, 1) == 4


@pytest.mark.parametrize(
    "kept",
    [
        [False, True, True, True],
        [True, False, True, True],
        [True, True, False, True],
    ],
    ids=["left padding", "hole", "late hole"],
)
def test_other_masks_are_refused(kept):
    for mask in (np.array(kept), additive(kept)):
        with pytest.raises(DataError, match="leading ones"):
            length_of({"m": mask[None, None, None]}, 4, 1)


def test_masks_that_differ_between_queries_are_refused():
    causal = np.tril(np.ones((1, 1, 5, 5), bool))
    with pytest.raises(DataError, match="every query"):
        length_of({"m": causal}, 5, 1)


def test_a_bias_is_no_mask():
    for value in (-1.5, -999.0, 2.0):
        with pytest.raises(DataError, match="no attention mask"):
            length_of({"m": np.array([[0.0, value, 0.0]])}, 3, 1)


@pytest.mark.parametrize("shape", [(), (1, 1, 6, 1), (1, 1, 6, 5)])
def test_the_last_axis_must_be_the_tokens(shape):
    with pytest.raises(DataError, match="last axis must be the 6 tokens"):
        length_of({"m": np.zeros(shape)}, 6, 1)


def test_masks_must_agree():
    with pytest.raises(DataError, match=r"'a' and 'b' differ"):
        length_of({"a": prefix(3), "b": prefix(4)}, 6, 1)


def test_too_few_tokens_are_refused():
    with pytest.raises(DataError, match="needs at least 2"):
        length_of({"m": prefix(1)}, 6, 2)
    with pytest.raises(DataError, match="needs at least 1"):
        length_of({"m": prefix(0)}, 6, 1)
