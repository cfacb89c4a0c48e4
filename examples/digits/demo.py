"""The demo: compiles the digits model and classifies real scans on the generated RTL."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateformer.compiler.compile import compile
from gateformer.compiler.folder import CompiledModel
from gateformer.examples.digits.data import load_split
from gateformer.sim.simulate import simulate, utilization
from gateformer.spec.config import AcceleratorConfig

FOLDER = Path(__file__).parent
MODEL = FOLDER / "digits.onnx"
CALIBRATION = FOLDER / "calibration.npz"
EXPECTED = FOLDER / "expected.npz"


@dataclass(frozen=True)
class Answer:
    """What was said of one test image: the label, the RTL's and the golden model's class."""

    image: NDArray[np.float32]
    label: int
    rtl: int
    golden: int
    cycles: int
    bit_exact: bool
    seconds: float


@dataclass(frozen=True)
class Summary:
    """The figures of a demo. Accuracies are shares of 1; float and golden are over all 360 test
    images, rtl over the images that ran on it."""

    images: int
    correct: int
    bit_exact: bool
    float_accuracy: float
    golden_accuracy: float
    rtl_accuracy: float
    cycles_per_image: float
    utilization: float
    simulated_cycles_per_second: float


class Demo:
    """The digits model compiled for one config, and the test images."""

    def __init__(self, config: AcceleratorConfig) -> None:
        compiled = compile(MODEL, CALIBRATION, config)
        assert compiled is not None
        self.model: CompiledModel = compiled
        split = load_split()
        self.images, self.labels = split.test_images, split.test_labels
        with np.load(EXPECTED) as expected:
            self.float_classes = expected["logits"].argmax(axis=1)

    def golden_classes(self, advance: Callable[[], None]) -> NDArray[np.int64]:
        """The golden model's class of every test image."""
        classes = []
        samples = [{"image": image[None]} for image in self.images]
        for result in simulate(self.model, samples, engine="golden"):
            classes.append(int(result.outputs[0]["logits"].argmax()))
            advance()
        return np.array(classes)

    def answers(
        self, count: int, golden: NDArray[np.int64], note: Callable[[str], None]
    ) -> Iterator[Answer]:
        """Runs the first `count` test images on the RTL."""
        samples = [{"image": image[None]} for image in self.images[:count]]
        for index, result in enumerate(simulate(self.model, samples, progress=note)):
            assert result.cycles is not None
            yield Answer(
                self.images[index, 0],
                int(self.labels[index]),
                int(result.outputs[0]["logits"].argmax()),
                int(golden[index]),
                result.cycles,
                bool(result.bit_exact),
                result.seconds,
            )

    def summary(self, answers: list[Answer], golden: NDArray[np.int64]) -> Summary:
        cycles = [answer.cycles for answer in answers]
        correct = sum(answer.rtl == answer.label for answer in answers)
        macs = self.model.image.model_macs * len(answers)
        return Summary(
            images=len(answers),
            correct=correct,
            bit_exact=all(answer.bit_exact for answer in answers),
            float_accuracy=float(np.mean(self.float_classes == self.labels)),
            golden_accuracy=float(np.mean(golden == self.labels)),
            rtl_accuracy=correct / len(answers),
            cycles_per_image=sum(cycles) / len(cycles),
            utilization=utilization(self.model.config, macs, sum(cycles)),
            simulated_cycles_per_second=sum(cycles) / sum(answer.seconds for answer in answers),
        )


def contact_sheet(answers: list[Answer], path: Path) -> None:
    """Draws every image with its label and the RTL's answer; wrong answers in red."""
    from matplotlib.figure import Figure

    columns = min(10, len(answers))
    rows = -(-len(answers) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.4 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, answer in zip(axes, answers, strict=False):
        axis.imshow(answer.image, cmap="gray_r", vmin=0, vmax=1)
        color = "black" if answer.rtl == answer.label else "red"
        axis.set_title(f"{answer.label} → {answer.rtl}", color=color, fontsize=9)
    figure.suptitle("label → answer of the generated hardware", fontsize=10)
    figure.savefig(path, dpi=120)
