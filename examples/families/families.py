"""The small models of the encoder families, what each one is, and random inputs for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

FOLDER = Path(__file__).parent
TEXT = ("input_ids", "attention_mask", "token_type_ids")
SPECIAL = 3
"""Token ids below it are padding and the like."""

Exporter = Literal["torchscript", "dynamo", "optimum"]
"""optimum: the TorchScript exporter called as Hugging Face's Optimum calls it, with a dynamic batch
and a dynamic length."""


@dataclass(frozen=True)
class Family:
    """A fixture: random weights in a real architecture, exported by `export.py`.

    architecture: the class in transformers, or in torch. activation: its name there. shapes: of
    every input. sentence: with the mean over tokens of sentence-transformers behind it. masks:
    inputs that say which tokens count. vocabulary: token ids are less. decibels: the least
    signal-to-noise ratio of the integer model's outputs against float.
    """

    name: str
    architecture: str
    exporter: Exporter
    opset: int
    tokens: int
    hidden: int
    heads: int
    feed_forward: int
    activation: str
    shapes: Mapping[str, tuple[int, ...]]
    decibels: float
    layers: int = 1
    sentence: bool = False
    masks: tuple[str, ...] = ()
    vocabulary: int = 40

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.onnx"

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    def inputs(self, samples: int, seed: int, length: int | None = None) -> dict[str, np.ndarray]:
        """Random inputs, [samples, *shape]: token ids, masks, embeddings and pixels.

        length: how many tokens count, where the model has masks; None stands for all of them.
        """
        return self._inputs(np.full(samples, length or self.tokens), seed)

    def calibration(self, samples: int, seed: int) -> dict[str, np.ndarray]:
        """The same where lengths from 1 to all tokens are mixed: a short input's attention
        averages less, so that its values are larger."""
        return self._inputs(np.rint(np.geomspace(1, self.tokens, samples)), seed)

    def _inputs(self, lengths: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        counts = np.arange(self.tokens) < lengths[:, None, None]

        def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
            shape = (len(lengths), *shape)
            match name:
                case "input_ids":
                    return random.integers(SPECIAL, self.vocabulary, shape)
                case "token_type_ids":
                    return np.sort(random.integers(0, 2, shape))
                case "attention_mask":
                    return np.broadcast_to(counts, shape).astype(np.int64)
                case "padding":
                    return np.broadcast_to(~counts, shape)
            return random.normal(0, 1, shape).astype(np.float32)

        return {name: array(name, shape) for name, shape in self.shapes.items()}


def _text(tokens: int, names: tuple[str, ...] = TEXT) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, (1, tokens))


_MASK = ("attention_mask",)
FAMILIES = (
    Family(
        name="bert",
        architecture="BertModel",
        exporter="torchscript",
        opset=14,
        tokens=37,
        hidden=72,
        heads=3,
        feed_forward=96,
        activation="gelu",
        shapes=_text(37),
        decibels=34,
        masks=_MASK,
    ),
    Family(
        name="bert-classifier",
        architecture="BertForSequenceClassification",
        exporter="dynamo",
        opset=18,
        tokens=7,
        hidden=64,
        heads=4,
        feed_forward=100,
        activation="gelu_new",
        shapes=_text(7),
        decibels=31,
        masks=_MASK,
    ),
    Family(
        name="distilbert",
        architecture="DistilBertForSequenceClassification",
        exporter="torchscript",
        opset=17,
        tokens=128,
        hidden=48,
        heads=3,
        feed_forward=72,
        activation="gelu",
        layers=2,
        shapes=_text(128, TEXT[:2]),
        decibels=36,
        masks=_MASK,
    ),
    Family(
        name="roberta",
        architecture="RobertaModel",
        exporter="optimum",
        opset=18,
        tokens=7,
        hidden=100,
        heads=5,
        feed_forward=36,
        activation="gelu",
        shapes=_text(7, TEXT[:2]),
        decibels=36,
        masks=_MASK,
    ),
    Family(
        name="minilm",
        architecture="BertModel",
        exporter="optimum",
        opset=18,
        tokens=37,
        hidden=192,
        heads=12,
        feed_forward=36,
        activation="gelu",
        sentence=True,
        shapes=_text(37),
        decibels=42,
        masks=_MASK,
    ),
    Family(
        name="vit",
        architecture="ViTForImageClassification",
        exporter="dynamo",
        opset=20,
        tokens=197,
        hidden=64,
        heads=2,
        feed_forward=96,
        activation="gelu",
        shapes={"pixel_values": (1, 1, 28, 28)},
        decibels=35,
    ),
    Family(
        name="vit-silu",
        architecture="ViTModel",
        exporter="optimum",
        opset=17,
        tokens=37,
        hidden=48,
        heads=1,
        feed_forward=72,
        activation="silu",
        layers=2,
        shapes={"pixel_values": (1, 3, 24, 24)},
        decibels=31,
    ),
    Family(
        name="deit",
        architecture="DeiTForImageClassificationWithTeacher",
        exporter="torchscript",
        opset=13,
        tokens=18,
        hidden=64,
        heads=1,
        feed_forward=72,
        activation="gelu",
        shapes={"pixel_values": (1, 3, 16, 16)},
        decibels=31,
    ),
    Family(
        name="post-norm",
        architecture="TransformerEncoderLayer",
        exporter="torchscript",
        opset=14,
        tokens=128,
        hidden=72,
        heads=2,
        feed_forward=60,
        activation="relu",
        shapes={"x": (1, 128, 72), "padding": (1, 128)},
        decibels=45,
        masks=("padding",),
    ),
    Family(
        name="pre-norm",
        architecture="TransformerEncoderLayer",
        exporter="dynamo",
        opset=21,
        tokens=1,
        hidden=100,
        heads=2,
        feed_forward=72,
        activation="tanh",
        shapes={"x": (1, 1, 100)},
        decibels=42,
    ),
)
"""Every fixture."""
BERT_BASE = Family(
    name="bert-base",
    architecture="BertModel",
    exporter="torchscript",
    opset=17,
    tokens=128,
    hidden=768,
    heads=12,
    feed_forward=3072,
    activation="gelu",
    shapes=_text(128),
    decibels=0,
    layers=12,
    masks=_MASK,
    vocabulary=30522,
)
"""The shape of BERT-base: no fixture, its file has 430 MB."""
