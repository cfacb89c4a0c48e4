"""The digits data: a fixed, seeded split of scikit-learn's bundled 8x8 scans."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_SIZE = 360
SPLIT_SEED = 0


class DigitsSplit(NamedTuple):
    """Images are float32 [N, 1, 8, 8] in 0..1 (pixel / 16); labels are int64 [N] in 0..9."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def load_split() -> DigitsSplit:
    """Return the 1,437 training and 360 test samples, stratified by label.

    The split and its order are the same on every call. Dividing by 16 is exact in float32,
    so `images * 16` gives back the integer pixels.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images,
        labels.astype(np.int64),
        test_size=TEST_SIZE,
        stratify=labels,
        random_state=SPLIT_SEED,
    )
    return DigitsSplit(train_images, train_labels, test_images, test_labels)
