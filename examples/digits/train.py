"""Train a small vision transformer on the digits and export it to ONNX.

Writes next to this file:
  digits.onnx      the model: `image` [1, 1, 8, 8] -> `logits` [1, 10]
  expected.npz     `logits` [360, 10] from onnxruntime, `labels` [360], `float_accuracy`
  calibration.npz  `image` [64, 1, 1, 8, 8], training images for choosing quantization scales
"""

import copy
import math
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from gateformer.examples.digits.data import load_split
from gateformer.examples.digits.evaluate import MODEL_PATH, accuracy, run_onnx

SEED = 0
EPOCHS = 400
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
DROPOUT = 0.1
EMA_DECAY = 0.998
CALIBRATION_SAMPLES = 64

# Limits of the random changes to training images.
MAX_DEGREES = 10.0
MAX_SCALING = 0.1
MAX_SHIFT = 0.6  # pixels
NOISE = 0.02  # standard deviation

IMAGE_SIZE = 8
PATCH_SIZE = 2
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
TOKENS = PATCHES + 1
CLASSES = 10
DIM = 48
HEADS = 3
HEAD_DIM = DIM // HEADS
MLP_DIM = 96
DEPTH = 2


class Attention(nn.Module):
    """Multi-head self-attention over [N, TOKENS, DIM], written with plain operators."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(DIM, DIM)
        self.key = nn.Linear(DIM, DIM)
        self.value = nn.Linear(DIM, DIM)
        self.out = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).reshape(-1, TOKENS, HEADS, HEAD_DIM).permute(0, 2, 1, 3)
        key = self.key(x).reshape(-1, TOKENS, HEADS, HEAD_DIM).permute(0, 2, 3, 1)
        value = self.value(x).reshape(-1, TOKENS, HEADS, HEAD_DIM).permute(0, 2, 1, 3)
        weights = torch.softmax(query @ key * HEAD_DIM**-0.5, dim=-1)
        mixed = (weights @ value).permute(0, 2, 1, 3).reshape(-1, TOKENS, DIM)
        return self.out(mixed)


class Block(nn.Module):
    """Pre-norm encoder block: [N, TOKENS, DIM] -> the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(DIM)
        self.attention = Attention()
        self.mlp_norm = nn.LayerNorm(DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, MLP_DIM), nn.GELU(), nn.Linear(MLP_DIM, DIM))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class DigitsTransformer(nn.Module):
    """Vision transformer: images [N, 1, 8, 8] in 0..1 -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(1, DIM, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.class_token = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.position_embedding = nn.Parameter(torch.randn(1, TOKENS, DIM) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(DIM)
        self.classifier = nn.Linear(DIM, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embedding(images).reshape(-1, DIM, PATCHES).permute(0, 2, 1)
        # Joined copies, not expand(): for a batch of 1 the export is then the bare parameter.
        class_tokens = torch.cat([self.class_token] * len(images))
        x = torch.cat([class_tokens, patches], dim=1) + self.position_embedding
        return self.classifier(self.norm(self.blocks(x))[:, 0])


def augment(images: Tensor) -> Tensor:
    """Return images [N, 1, 8, 8], each randomly rotated, scaled and shifted, plus noise."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count) * 2 - 1) * limit

    angle, scale = uniform(math.radians(MAX_DEGREES)), 1 + uniform(MAX_SCALING)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = MAX_SHIFT * 2 / IMAGE_SIZE  # affine_grid coordinates span -1..1
    rows = [cos, -sin, uniform(shift), sin, cos, uniform(shift)]
    grid = functional.affine_grid(
        torch.stack(rows, dim=1).reshape(count, 2, 3), list(images.shape), align_corners=False
    )
    moved = functional.grid_sample(images, grid, align_corners=False)
    return (moved + NOISE * torch.randn_like(moved)).clamp(0, 1)


def train(images: Tensor, labels: Tensor) -> DigitsTransformer:
    """Run the fixed recipe and return the moving average of the weights, in eval mode."""
    torch.manual_seed(SEED)
    model = DigitsTransformer()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    steps = EPOCHS * math.ceil(len(images) / BATCH_SIZE)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            logits = model(augment(images[batch]))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new.detach(), 1 - EMA_DECAY)
            total += loss.item() * len(batch)
        if (epoch + 1) % 50 == 0:
            print(f"epoch {epoch + 1:3d}  training loss {total / len(images):.4f}", flush=True)
    return average


def export(model: DigitsTransformer, path: Path) -> None:
    """Write the model to path with a fixed batch size of 1 and its weights inside the file."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(str(path), full_check=True)


def main() -> None:
    """Train, export, write the reference and calibration arrays, print the test accuracy."""
    torch.set_num_threads(1)
    split = load_split()
    model = train(torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels))
    export(model, MODEL_PATH)

    logits = run_onnx(MODEL_PATH, split.test_images)
    float_accuracy = accuracy(logits, split.test_labels)
    np.savez(
        MODEL_PATH.with_name("expected.npz"),
        logits=logits,
        labels=split.test_labels,
        float_accuracy=np.float64(float_accuracy),
    )
    np.savez(
        MODEL_PATH.with_name("calibration.npz"),
        image=split.train_images[:CALIBRATION_SAMPLES, None],
    )
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters())}")
    print(f"test accuracy: {float_accuracy:.4%}")


if __name__ == "__main__":
    main()
