"""Sets of words."""

import numpy as np
import pytest

from gateformer.compiler.words import Words

END = 40


def random_words(random):
    """A set and the same as a mask."""
    blocks = [(int(a), int(a + n)) for a, n in random.integers(0, 12, (6, 2)) * (3, 1)]
    mask = np.ones(END, bool)
    for start, stop in blocks:
        mask[start:stop] = False
    return Words.outside(blocks, END), mask


def mask_of(words):
    mask = np.zeros(END, bool)
    for part in words.ranges:
        mask[part.start : part.stop] = True
    return mask


@pytest.mark.parametrize("seed", range(20))
def test_sets_are_what_masks_are(seed):
    random = np.random.default_rng(seed)
    (a, in_a), (b, in_b) = random_words(random), random_words(random)
    assert np.array_equal(mask_of(a), in_a), seed
    assert np.array_equal(mask_of(a & b), in_a & in_b), seed
    assert len(a) == in_a.sum(), seed
    end = int(random.integers(0, END))
    assert np.array_equal(mask_of(a.below(end)), in_a & (np.arange(END) < end)), seed
    for start in range(END - 3):
        assert a.hold(range(start, start + 3)) == in_a[start : start + 3].all(), seed
