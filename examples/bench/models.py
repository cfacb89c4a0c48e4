"""The models of the benchmark: transformers of well-known shapes with random weights.

    python -m gateformer.examples.bench.models deit-tiny --layers 12 -o build/deit-tiny

writes `model.onnx`, `calibration.npz` and `input.npz`, ready for `gateformer compile` and
`gateformer simulate`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from gateformer.cli.files import make_folder, write_bytes
from gateformer.cli.options import positive
from gateformer.examples.bench.builder import Builder

SEED = 1
CALIBRATION = 4
"""Random inputs that calibrate a model."""


def vision_transformer(
    *,
    layers: int,
    tokens: int,
    dim: int,
    heads: int,
    hidden: int,
    patch: int,
    classes: int,
    seed: int = SEED,
) -> onnx.ModelProto:
    """Pre-norm blocks between a patch embedding and a head on the class token, as DeiT and ViT
    have them (Touvron et al. 2021).

    Input `patches`, [1, tokens - 1, patch]: each row is a patch of the image. Output `logits`.
    """
    b = Builder(seed)
    patches = b.linear("embed", b.input("patches", 1, tokens - 1, patch), patch, dim)
    token = b.normal("class_token", 1, 1, dim)
    joined = b.op("embed/Concat", "Concat", token, patches, axis=1)
    x = b.op("embed/position", "Add", joined, b.normal("positions", 1, tokens, dim, deviation=0.2))
    for layer in range(layers):
        name = f"layer{layer}"
        part = b.norm(f"{name}/norm1", x, dim)
        part = b.attention(f"{name}/attention", part, tokens, dim, heads)
        x = b.op(f"{name}/residual1", "Add", x, part)
        part = b.feed_forward(f"{name}/mlp", b.norm(f"{name}/norm2", x, dim), dim, hidden)
        x = b.op(f"{name}/residual2", "Add", x, part)
    x = b.norm("norm", x, dim)
    first = b.op("class", "Gather", x, b.constant("zero", np.array(0, np.int64)), axis=1)
    b.op("logits", "Identity", b.linear("head", first, dim, classes))
    return b.model("vision_transformer", {"logits": (1, classes)})


def post_norm_encoder(
    *, layers: int, tokens: int, dim: int, heads: int, hidden: int, seed: int = SEED
) -> onnx.ModelProto:
    """Post-norm blocks alone, as BERT has them (Devlin et al. 2019).

    Input `x` and output `y`, [1, tokens, dim].
    """
    b = Builder(seed)
    x = b.input("x", 1, tokens, dim)
    for layer in range(layers):
        name = f"layer{layer}"
        part = b.attention(f"{name}/attention", x, tokens, dim, heads)
        x = b.norm(f"{name}/norm1", b.op(f"{name}/residual1", "Add", x, part), dim)
        part = b.feed_forward(f"{name}/mlp", x, dim, hidden)
        x = b.norm(f"{name}/norm2", b.op(f"{name}/residual2", "Add", x, part), dim)
    b.op("y", "Identity", x)
    return b.model("post_norm_encoder", {"y": (1, tokens, dim)})


def attention(*, tokens: int, heads: int, size: int) -> onnx.ModelProto:
    """Scores, softmax and mix alone, without weights.

    Inputs as the projections of a layer leave them: `query` and `key`, [1, heads, tokens, size],
    and `value`, [1, heads, size, tokens], since the mix contracts over tokens. Output `mixed`,
    [1, tokens, heads * size].
    """
    b = Builder(SEED)
    query, key = (b.input(name, 1, heads, tokens, size) for name in ("query", "key"))
    value = b.input("value", 1, heads, size, tokens)
    shares = b.shares("attention", query, key, size)
    mixed = b.op("attention/mix", "Einsum", shares, value, equation="bhij,bhdj->bhid")
    b.op("mixed", "Identity", b.join("attention", mixed, tokens, heads * size))
    return b.model("attention", {"mixed": (1, tokens, heads * size)})


def deit_tiny(layers: int = 12) -> onnx.ModelProto:
    """DeiT-Tiny: 197 tokens, dim 192, 3 heads, 16x16 patches of 3 channels, 1,000 classes."""
    return vision_transformer(
        layers=layers, tokens=197, dim=192, heads=3, hidden=768, patch=768, classes=1000
    )


def bert_base(layers: int = 4) -> onnx.ModelProto:
    """Layers of BERT-base on 128 tokens: dim 768, 12 heads, 3,072 between its two products."""
    return post_norm_encoder(layers=layers, tokens=128, dim=768, heads=12, hidden=3072)


def deit_attention(layers: int = 1) -> onnx.ModelProto:
    """The attention of DeiT-Tiny alone: 197 tokens, 3 heads of 64 for each layer."""
    return attention(tokens=197, heads=3 * layers, size=64)


MODELS: Mapping[str, Callable[..., onnx.ModelProto]] = {
    "deit-tiny": deit_tiny,
    "bert-base": bert_base,
    "attention": deit_attention,
}
"""The model of a number of layers, by name."""


def random_inputs(model: onnx.ModelProto, count: int, seed: int) -> dict[str, np.ndarray]:
    """Normal inputs, [count, *shape of the input], by name."""
    random = np.random.default_rng(seed)
    return {
        value.name: random.normal(
            size=(count, *(d.dim_value for d in value.type.tensor_type.shape.dim))
        ).astype(np.float32)
        for value in model.graph.input
    }


def write(model: onnx.ModelProto, folder: Path, samples: int = 1) -> None:
    """Writes model.onnx, calibration.npz and input.npz (samples that calibration has not seen).

    Raises GateformerError when it cannot.
    """
    make_folder(folder)
    write_bytes(folder / "model.onnx", lambda file: file.write(model.SerializeToString()))
    for name, count, seed in (("calibration", CALIBRATION, SEED + 1), ("input", samples, SEED + 2)):
        _save(folder / f"{name}.npz", random_inputs(model, count, seed))


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    write_bytes(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="writes a model with random weights, and inputs")
    parser.add_argument("model", choices=MODELS, help="its shape")
    parser.add_argument("--layers", type=positive, help="how many")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="result")
    options = parser.parse_args(arguments)
    make = MODELS[options.model]
    write(make(options.layers) if options.layers else make(), options.output)


if __name__ == "__main__":
    main()
