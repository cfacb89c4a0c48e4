"""The float graph that every model is lowered to: contractions, softmax, norms and copies on
matrices.

A tensor is a matrix. Its columns may be split into equal segments (attention heads), each of which
is padded to a word on its own in memory. Operations read and write *views*: blocks of rows and of
columns; a view of columns is one whole segment or all of them.
"""

import enum
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from gateformer.compiler.grid import Grid


class Role(enum.Enum):
    """Where a tensor's values come from."""

    CONSTANT = "constant"
    INPUT = "input"
    VALUE = "value"
    OUTPUT = "output"


@dataclass(frozen=True)
class Tensor:
    """A float matrix of `rows` x `cols`. data: [rows, cols] of constants, in float32
    as the model's file has them or in float64, else None."""

    name: str
    rows: int
    cols: int
    role: Role
    segment: int
    """Columns of one segment; equal to `cols` where the tensor is not split."""
    data: np.ndarray | None = field(default=None, compare=False, repr=False)
    row_token: int | None = None
    """The token that row 0 stands for, where rows are tokens that a runtime length cuts."""
    col_tokens: bool = False
    """Whether columns are tokens (column 0 is token 0) that a runtime length cuts."""
    grid: Grid | None = None
    """What a quantization-aware file rounds it to; of weights, with a scale for each row."""


@dataclass(frozen=True)
class View:
    """Rows `row` to `row + rows` and columns `col` to `col + cols` of a tensor."""

    tensor: str
    row: int
    rows: int
    col: int
    cols: int


class Matrix(Protocol):
    """A tensor of this graph or of the integer graph."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...


def whole(tensor: Matrix) -> View:
    """All of a tensor."""
    return View(tensor.name, 0, tensor.rows, 0, tensor.cols)


@dataclass(frozen=True)
class Gemm:
    """out = activation(factor * a @ b.T + bias) + residual.

    a: [m, k], b: [n, k], out: [m, n]; bias has one value for each column, or for each row where
    `by_row`; activation: the name of a function in `activations`, or None.
    """

    name: str
    a: View
    b: View
    out: View
    bias: np.ndarray | None = field(default=None, compare=False, repr=False)
    by_row: bool = False
    factor: float = 1.0
    activation: str | None = None
    residual: View | None = None
    nodes: tuple[str, ...] = field(default=(), compare=False)
    """The nodes of the model that it computes, the product first."""

    @property
    def macs(self) -> int:
        return self.a.rows * self.b.rows * self.a.cols


@dataclass(frozen=True)
class Softmax:
    """target = softmax of every row of source. masked: whether the model masks the scores."""

    name: str
    source: View
    target: View
    nodes: tuple[str, ...] = field(default=(), compare=False)
    masked: bool = False


@dataclass(frozen=True)
class Norm:
    """target = LayerNorm of every row of source, with gain and bias for each column."""

    name: str
    source: View
    target: View
    gain: np.ndarray = field(compare=False, repr=False)
    bias: np.ndarray = field(compare=False, repr=False)
    epsilon: float
    nodes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Copy:
    """target = source, a constant."""

    name: str
    source: View
    target: View


Operation = Gemm | Softmax | Norm | Copy


@dataclass(frozen=True)
class HostOperation:
    """A node of the model that the host runs, and why no engine does."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Host:
    """The host's share of a model, as two ONNX models that onnxruntime runs.

    before: from the model's inputs (their names and shapes) to the graph's INPUT tensors, float
    matrices under the tensors' names, and to the graph's masks. after: from the graph's OUTPUT
    tensors, float matrices under their names, and those of the model's inputs that it declares, to
    the model's outputs.
    """

    before: onnx.ModelProto
    after: onnx.ModelProto
    operations: tuple[HostOperation, ...]


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can run. Every value is written before it is read.

    host: what the host does before and after the accelerator. masks: outputs of host.before beside
    the INPUT tensors: what the model adds to (float) or selects by (bool) in front of its
    softmaxes; they say how many tokens count. tokens: the most tokens of an input, None where no
    runtime length can cut the model. least_tokens: the fewest.
    """

    tensors: dict[str, Tensor]
    operations: tuple[Operation, ...]
    host: Host
    masks: tuple[str, ...] = ()
    tokens: int | None = None
    least_tokens: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the model's own products, without any padding."""
        return sum(op.macs for op in self.operations if isinstance(op, Gemm))
