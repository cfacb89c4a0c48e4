"""Writes the ONNX files of `families.py`: random weights, real architectures. Needs the extra
`train`.

    python -m gateformer.examples.families.export

and, with random weights too, a model of BERT-base's shape under a path of its own:

    python -m gateformer.examples.families.export build/bert-base.onnx
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from gateformer.examples.families.families import BERT_BASE, FAMILIES, Family

SEED = 0
SPREAD = 0.2
"""Standard deviation of the norms' gains and biases, which are all 1 and 0 in a new model."""
CLASSES = 5


class Tensors(nn.Module):
    """A transformers model that takes its inputs by position and gives one tensor."""

    def __init__(self, family: Family, model: nn.Module, output: str) -> None:
        super().__init__()
        self.names = tuple(family.shapes)
        self.model = model
        self.output = output

    def forward(self, *inputs: Tensor) -> Tensor:
        results = self.model(**dict(zip(self.names, inputs, strict=True)))
        return results[self.output]


class Sentence(Tensors):
    """The mean of the tokens that count, of length 1: what sentence-transformers computes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        hidden = super().forward(*inputs)
        mask = inputs[self.names.index("attention_mask")].unsqueeze(-1)
        weights = mask.expand(hidden.size()).float()
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, p=2, dim=1)


class Block(nn.Module):
    """torch's own encoder layer, between one batch of embeddings and another."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            family.hidden,
            family.heads,
            family.feed_forward,
            dropout=0.0,
            activation=ACTIVATIONS[family.activation],
            batch_first=True,
            norm_first=family.name == "pre-norm",
        )

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.layer(x, src_key_padding_mask=padding)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
}


def build(family: Family) -> tuple[nn.Module, str]:
    """The model of a family, and its output's name."""
    if family.architecture == "TransformerEncoderLayer":
        return Block(family), "y"
    kind = getattr(transformers, family.architecture)
    # SDPA, the default, has no form in opset 13.
    attention = "eager" if family.opset < 14 else "sdpa"
    model = kind._from_config(_config(family, kind.config_class), attn_implementation=attention)
    if family.sentence:
        return Sentence(family, model, "last_hidden_state"), "sentence_embedding"
    output = "logits" if "Classification" in family.architecture else "last_hidden_state"
    return Tensors(family, model, output), output


def _config(family: Family, kind: Any) -> Any:
    """The family's configuration, of a class of transformers."""
    # Weights of this size keep activations and attention scores at the size of trained models'.
    spread = family.hidden**-0.5
    if kind.model_type == "distilbert":
        return kind(
            initializer_range=spread,
            vocab_size=family.vocabulary,
            max_position_embeddings=family.tokens,
            dim=family.hidden,
            n_heads=family.heads,
            n_layers=family.layers,
            hidden_dim=family.feed_forward,
            activation=family.activation,
            num_labels=CLASSES,
        )
    common = {
        "hidden_size": family.hidden,
        "num_attention_heads": family.heads,
        "num_hidden_layers": family.layers,
        "intermediate_size": family.feed_forward,
        "hidden_act": family.activation,
        "num_labels": CLASSES,
        "initializer_range": spread,
    }
    if "pixel_values" in family.shapes:
        _, channels, size, _ = family.shapes["pixel_values"]
        patches = int(family.tokens**0.5)
        sizes = {"image_size": size, "num_channels": channels, "patch_size": size // patches}
        return kind(**common, **sizes)
    # RoBERTa numbers its positions from 2 on.
    positions = family.tokens + 2
    return kind(**common, vocab_size=family.vocabulary, max_position_embeddings=positions)


def export(family: Family, path: Path) -> None:
    """Writes a family's model, with random weights."""
    torch.manual_seed(SEED)
    model, output = build(family)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, SPREAD)
            nn.init.normal_(module.bias, 0.0, SPREAD)
    model.eval()
    names = list(family.shapes)
    sample = family.inputs(1, SEED)
    inputs = tuple(torch.from_numpy(sample[name][0]) for name in names)
    torch.onnx.export(
        model,
        inputs,
        str(path),
        input_names=names,
        output_names=[output],
        opset_version=family.opset,
        dynamo=family.exporter == "dynamo",
        do_constant_folding=True,
        dynamic_axes=_axes(names, output) if family.exporter == "optimum" else None,
        external_data=False,
        verbose=False,
    )
    onnx.save(_bare(onnx.load(path)), path)


def _axes(inputs: list[str], output: str) -> dict[str, dict[int, str]]:
    """Optimum's names of dynamic axes."""
    image = {0: "batch_size", 1: "num_channels", 2: "height", 3: "width"}
    text = {0: "batch_size", 1: "sequence_length"}
    axes = {name: image if name == "pixel_values" else text for name in inputs}
    whole = output == "last_hidden_state" and "pixel_values" not in inputs
    return {**axes, output: text if whole else {0: "batch_size"}}


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes on where in the source each node comes from."""
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    return model


def main() -> None:
    warnings.filterwarnings("ignore")
    paths = {family.path: family for family in FAMILIES}
    if sys.argv[1:]:
        paths = {Path(sys.argv[1]): BERT_BASE}
    for path, family in paths.items():
        export(family, path)
        print(f"{path.name} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
