"""Measure the exported model on the test images with onnxruntime; PyTorch is not needed."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gateformer.examples.digits.data import load_split

MODEL_PATH = Path(__file__).with_name("digits.onnx")


def run_onnx(model_path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images [N, 1, 8, 8] one at a time, as the batch size is 1; return logits [N, 10]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model_path), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images])


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the fraction of rows of logits [N, 10] whose largest entry is the label."""
    return float(np.mean(logits.argmax(axis=1) == labels))


def main() -> None:
    """Print the test accuracy of the exported model."""
    split = load_split()
    value = accuracy(run_onnx(MODEL_PATH, split.test_images), split.test_labels)
    correct = round(value * len(split.test_labels))
    print(f"test accuracy: {value:.4%} ({correct} of {len(split.test_labels)})")


if __name__ == "__main__":
    main()
