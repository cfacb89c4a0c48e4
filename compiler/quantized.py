"""The integer graph: what the accelerator computes, before tiling. Its meaning is exact.

`sim/golden_graph.py` executes it; the schedule executes it in tiles; both give the same integers.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gateformer.compiler.graph import Role, View

Kind = Literal["int8", "int16", "int32", "record"]


@dataclass(frozen=True)
class ChannelMap:
    """The code of column c stands for offsets[c] + factors[c] * scale * (code - zero)."""

    factors: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class QTensor:
    """An integer matrix; real value = scale * (code - zero), but where `channels` says otherwise.

    scale is None where no single scale exists (weights, which have one a row) or where it is not
    needed. codes: [rows, cols] for constants, in int8, int16 or int32. A tensor of kind "record"
    has one 8-byte scale record a row (cols = 1), written by softmax.
    """

    name: str
    rows: int
    cols: int
    role: Role
    segment: int
    kind: Kind
    scale: float | None = None
    zero: int = 0
    codes: np.ndarray | None = field(default=None, compare=False, repr=False)
    row_token: int | None = None
    """The token that row 0 of every sample stands for, where a runtime length cuts the rows."""
    col_tokens: bool = False
    """Whether the columns of every sample are tokens that a runtime length cuts."""
    samples: int = 1
    """Samples of one batch: the rows (or, with col_tokens, the segments) fall into as many equal
    runs, one a sample."""
    channels: ChannelMap | None = field(default=None, compare=False, repr=False)
    """Where smoothing scales or shifts columns (never of an INPUT or OUTPUT)."""
    sample: int = 0
    """The sample of the first of these runs: `sample` of the instructions that it cuts."""


@dataclass(frozen=True)
class Records:
    """Scale records: int32 bias, multiplier 0..65535 and selector 0..3 for each column (or row)."""

    bias: np.ndarray = field(compare=False, repr=False)
    multiplier: np.ndarray = field(compare=False, repr=False)
    selector: np.ndarray = field(compare=False, repr=False)


@dataclass(frozen=True)
class QGemm:
    """out = epilogue(a @ b.T): see the GEMM instruction and docs/architecture.md.

    a, b: int8. out: int8, int16 or int32 by its tensor's kind. records: by column, or by row where
    `by_row`; or the name of a record tensor (then by row). activation: the bytes that fill the
    activation unit (int8 table of 2**activation_bits entries, or the polynomial's parameters), or
    None. residual: int16, with int16 out only. An int16 result saturates to residual_bits.
    """

    name: str
    a: View
    b: View
    out: View
    records: Records | str
    by_row: bool = False
    activation: np.ndarray | None = field(default=None, compare=False, repr=False)
    residual: View | None = None

    @property
    def macs(self) -> int:
        return self.a.rows * self.b.rows * self.a.cols


@dataclass(frozen=True)
class QSoftmax:
    """Rows of int8 scores to numerators 0..127 and one record a row (`arithmetic.softmax_row`,
    `arithmetic.reciprocal`). Row r counts its first min(cols, bound + r * causal) scores; row 0 is
    the view's first."""

    name: str
    source: View
    target: View
    records: str
    table: np.ndarray = field(compare=False, repr=False)
    numerator: int
    bound: int
    causal: bool = False


@dataclass(frozen=True)
class Gain:
    """One output of a norm: target, gains (int16), biases (int32), right shift (NORM_SHIFTS)."""

    target: View
    gains: np.ndarray = field(compare=False, repr=False)
    biases: np.ndarray = field(compare=False, repr=False)
    shift: int = 16


@dataclass(frozen=True)
class QNorm:
    """LayerNorm of int16 rows (`arithmetic.normalize_row`, `arithmetic.gain`); at least one
    output."""

    name: str
    source: View
    epsilon: int
    int8: Gain | None
    int16: Gain | None

    @property
    def gains(self) -> list[Gain]:
        return [gain for gain in (self.int8, self.int16) if gain is not None]


@dataclass(frozen=True)
class QCopy:
    """target = source, a constant of the same kind."""

    name: str
    source: View
    target: View


QOperation = QGemm | QSoftmax | QNorm | QCopy


@dataclass(frozen=True)
class QuantizedGraph:
    """Operations in an order in which they can run. tokens: the most tokens of an input, None where
    no runtime length can cut the graph; least_tokens: the fewest. samples: of the batch."""

    tensors: dict[str, QTensor]
    operations: tuple[QOperation, ...]
    tokens: int | None = None
    least_tokens: int = 1
    samples: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the model's own products, without any padding."""
        return sum(op.macs for op in self.operations if isinstance(op, QGemm))

    def is_constant(self, view: View) -> bool:
        return self.tensors[view.tensor].role is Role.CONSTANT

    def weight_side(self, op: QGemm) -> Literal["left", "right"] | None:
        """Which operand of a product is weights; None where both or neither are."""
        left, right = self.is_constant(op.a), self.is_constant(op.b)
        if left == right:
            return None
        return "left" if left else "right"

    def macs_of_length(self) -> tuple[int, int, int]:
        """(c0, c1, c2): with `length` tokens c0 + c1 * length + c2 * length**2 of `macs` remain,
        for a graph of one sample. No product has tokens on all three axes."""
        if self.tokens is None:
            return self.macs, 0, 0
        here, next_, after = (self._macs_beyond(more) for more in range(3))
        square = (after - 2 * next_ + here) // 2
        linear = next_ - here - square * (2 * self.tokens + 1)
        return here - linear * self.tokens - square * self.tokens**2, linear, square

    def _macs_beyond(self, more: int) -> int:
        """Multiply-accumulates if every input had `more` tokens more."""
        total = 0
        for op in self.operations:
            if isinstance(op, QGemm):
                rows = (view.rows + more * self._cut(view) for view in (op.a, op.b))
                k = op.a.cols + more * self.tensors[op.a.tensor].col_tokens
                total += math.prod((*rows, k))
        return total

    def _cut(self, view: View) -> bool:
        """Whether a runtime length cuts the rows of a view: those that reach the last token."""
        first = self.tensors[view.tensor].row_token
        return first is not None and first + view.row + view.rows == self.tokens
