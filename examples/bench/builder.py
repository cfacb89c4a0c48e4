"""Transformers with random weights as ONNX models, made without any framework."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 20, 9
EPSILON = 1e-6


@dataclass
class Builder:
    """An ONNX graph in the making; every method returns the name of the tensor that it makes.

    Weights are normal with variance 1/fan-in and norms keep a row's variance near 1, so that
    activations stay in the range that trained models have.
    """

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def input(self, name: str, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def op(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, name: str, *shape: int, mean: float = 0.0, deviation: float = 1.0) -> str:
        return self.constant(name, self._random.normal(mean, deviation, shape).astype(np.float32))

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        """[..., inputs] to [..., outputs], with bias."""
        weight = self.normal(f"{name}.weight", inputs, outputs, deviation=inputs**-0.5)
        bias = self.normal(f"{name}.bias", outputs, deviation=0.1)
        return self.op(f"{name}/Add", "Add", self.op(name, "MatMul", x, weight), bias)

    def norm(self, name: str, x: str, dim: int) -> str:
        gain = self.normal(f"{name}.gain", dim, mean=1.0, deviation=0.1)
        bias = self.normal(f"{name}.bias", dim, deviation=0.1)
        return self.op(name, "LayerNormalization", x, gain, bias, axis=-1, epsilon=EPSILON)

    def heads(self, name: str, x: str, tokens: int, heads: int, size: int) -> str:
        """[1, tokens, heads * size] to [1, heads, tokens, size]."""
        shape = self.constant(f"{name}.shape", np.array([1, tokens, heads, size], np.int64))
        split = self.op(f"{name}/Reshape", "Reshape", x, shape)
        return self.op(f"{name}/Transpose", "Transpose", split, perm=[0, 2, 1, 3])

    def join(self, name: str, x: str, tokens: int, dim: int) -> str:
        """[1, heads, tokens, size] to [1, tokens, dim]."""
        turned = self.op(f"{name}/mix/Transpose", "Transpose", x, perm=[0, 2, 1, 3])
        shape = self.constant(f"{name}.shape", np.array([1, tokens, dim], np.int64))
        return self.op(f"{name}/Reshape", "Reshape", turned, shape)

    def shares(self, name: str, query: str, key: str, size: int) -> str:
        """Softmax of the scaled scores of [1, heads, tokens, size]: [1, heads, tokens, tokens]."""
        equation = "bhid,bhjd->bhij"
        products = self.op(f"{name}/scores", "Einsum", query, key, equation=equation)
        scale = self.constant(f"{name}.scale", np.array(size**-0.5, np.float32))
        return self.op(f"{name}/softmax", "Softmax", self.op(f"{name}/Mul", "Mul", products, scale))

    def attention(self, name: str, x: str, tokens: int, dim: int, heads: int) -> str:
        """Multi-head self-attention of [1, tokens, dim], projections included."""
        size = dim // heads
        query, key, value = (
            self.heads(
                f"{name}/{part}", self.linear(f"{name}/{part}", x, dim, dim), tokens, heads, size
            )
            for part in ("query", "key", "value")
        )
        mixed = self.op(f"{name}/mix", "MatMul", self.shares(name, query, key, size), value)
        return self.linear(f"{name}/output", self.join(name, mixed, tokens, dim), dim, dim)

    def feed_forward(self, name: str, x: str, dim: int, hidden: int) -> str:
        up = self.linear(f"{name}/up", x, dim, hidden)
        return self.linear(f"{name}/down", self.op(f"{name}/gelu", "Gelu", up), hidden, dim)

    def model(self, name: str, outputs: dict[str, Sequence[int]]) -> onnx.ModelProto:
        """The model; outputs: their shapes by tensor name."""
        values = [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
            for output, shape in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, name, self.inputs, values, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
