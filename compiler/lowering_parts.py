"""Finds which parts of matrices are computed, from what is read.

Readers are asked before what they read. Each reader asks for a block of element numbers; the pieces
of matrices that a block is made of become *parts*: a part is computed by one operation and only as
far as somebody asks for it. So unread rows are never computed, a fused projection falls into one
part for queries, keys and values each, and a matrix that is read transposed is computed transposed
(its product's operands swap their roles).
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from gateformer.compiler.importer import Node
from gateformer.compiler.lowering_fusion import reachable
from gateformer.compiler.lowering_matrices import (
    Constant,
    Contraction,
    Ids,
    Input,
    Matrix,
    Normalization,
    Pool,
    SoftmaxRows,
    UnsupportedError,
)
from gateformer.spec.errors import ModelError

Use = Literal["left", "right", "operand", "stream", "scores", "output"]
"""What a block is read for: the sides of a product of two tensors, a product with weights, a norm
or a residual, a softmax, the host."""

WIDE: tuple[Use, ...] = ("stream", "output")
"""Uses that read int16; the others read int8."""


@dataclass(eq=False)
class Part:
    """Rows `first` to `last` (exclusive) and some columns of a matrix, as one operation makes them.

    columns: groups of equal size, one a segment. reads: the blocks that the operation reads.
    """

    matrix: Matrix
    transposed: bool
    use: Use
    groups: list[np.ndarray]
    first: int
    last: int
    reads: dict[str, "Block"] = field(default_factory=dict)
    k_order: np.ndarray | None = None
    tensor: "Placement | None" = None
    row: int = 0
    col: int = 0

    @property
    def columns(self) -> np.ndarray:
        return np.concatenate(self.groups)

    @property
    def shape(self) -> tuple[int, int]:
        shape = (self.last - self.first, sum(len(group) for group in self.groups))
        return shape[::-1] if self.transposed else shape

    @property
    def segment(self) -> int:
        return self.shape[1] if self.transposed else len(self.groups[0])


@dataclass(eq=False)
class Placement:
    """A tensor in the making."""

    name: str
    rows: int
    cols: int
    segment: int
    parts: list[Part] = field(default_factory=list)


@dataclass(eq=False)
class Piece:
    """A block of one matrix, at (row, col) of the block that a reader asks for."""

    matrix: Matrix
    transposed: bool
    rows: np.ndarray
    cols: np.ndarray
    row: int
    col: int
    part: Part | None = None

    @property
    def shape(self) -> tuple[int, int]:
        shape = (len(self.rows), len(self.cols))
        return shape[::-1] if self.transposed else shape


@dataclass(eq=False)
class Block:
    """What a reader asks for."""

    reader: Node | None
    use: Use
    rows: int
    cols: int
    pieces: list[Piece]

    def refuse(self, reason: str) -> ModelError:
        return _refuse(self.reader, reason)


class Parts:
    """The parts of all matrices that outputs depend on. outputs: element blocks [rows, cols] that
    the host reads, each with the node to blame."""

    def __init__(self, pool: Pool, outputs: list[tuple[Ids, Node | None]]) -> None:
        self._pool = pool
        self._asked: dict[int, list[tuple[Piece, Use]]] = {}
        self.blocks: list[Block] = []
        """All that is read."""
        order = reachable(pool, [ids for ids, _ in outputs])
        self.outputs = [self._ask(ids, "output", node) for ids, node in outputs]
        """What the host reads."""
        parts: list[list[Part]] = []
        for matrix in reversed(order):
            parts.append(self._make_parts(matrix))
            for part in parts[-1]:
                self._ask_operands(part)
        self.all = [part for matrix in reversed(parts) for part in matrix]
        """Every part, in an order in which they can be computed."""

    def _ask(self, ids: Ids, use: Use, reader: Node | None) -> Block:
        pieces = self._decompose(ids)
        if pieces is None:
            raise _refuse(
                reader,
                "what it reads is no block of rows and columns; "
                "window attention and other regrouping of tokens: not yet",
            )
        block = Block(reader, use, len(ids), ids.shape[1], pieces)
        self.blocks.append(block)
        for piece in pieces:
            self._asked.setdefault(piece.matrix.base, []).append((piece, use))
        return block

    def _decompose(self, ids: Ids) -> list[Piece] | None:
        """The pieces of a block, side by side in one direction; None when there are none such."""
        if self._pool.sole(ids) is not None:
            piece = self._piece(ids, 0, 0)
            return None if piece is None else [piece]
        for axis in (0, 1):
            line = ids[:, 0] if axis == 0 else ids[0]
            bases = np.array([self._pool.of(int(element)).base for element in line])
            cuts = [0, *(np.flatnonzero(np.diff(bases)) + 1).tolist(), len(line)]
            pieces = []
            for start, stop in pairwise(cuts):
                part = ids[start:stop] if axis == 0 else ids[:, start:stop]
                piece = (
                    self._piece(part, *((start, 0) if axis == 0 else (0, start)))
                    if self._pool.sole(part) is not None
                    else None
                )
                pieces.append(piece)
            found = [piece for piece in pieces if piece is not None]
            if len(found) == len(pieces):
                return found
        return None

    def _piece(self, ids: Ids, row: int, col: int) -> Piece | None:
        matrix = self._pool.of(int(ids[0, 0]))
        local = ids - matrix.base
        for transposed in (False, True):
            grid = local.T if transposed else local
            rows, cols = grid[:, 0] // matrix.cols, grid[0] % matrix.cols
            if np.array_equal(grid, rows[:, None] * matrix.cols + cols) and is_run(rows):
                return Piece(matrix, transposed, rows, cols, row, col)
        return None

    def _make_parts(self, matrix: Matrix) -> list[Part]:
        """The parts that the pieces asked of a matrix need."""
        parts: list[Part] = []
        definition = matrix.definition
        flexible = isinstance(definition, Constant | Input) or (
            isinstance(definition, Contraction) and definition.b is None
        )
        # A norm alone writes int8 and int16 at once.
        one_width = not isinstance(definition, Normalization)
        asked = sorted(self._asked.get(matrix.base, []), key=lambda ask: int(ask[0].cols.min()))
        for piece, use in asked:
            self._check_use(matrix, use)
            cols = piece.cols if flexible else np.arange(matrix.cols)
            part = next(
                (
                    p
                    for p in parts
                    if p.transposed == piece.transposed
                    and any(np.array_equal(group, cols) for group in p.groups)
                    and not (one_width and (p.use in WIDE) != (use in WIDE))
                ),
                None,
            )
            if part is None and use in ("left", "right"):
                part = next(
                    (
                        p
                        for p in parts
                        if (p.transposed, p.use) == (piece.transposed, use)
                        and len(p.groups[0]) == len(cols)
                        and not np.isin(cols, p.columns).any()
                    ),
                    None,
                )
                if part is not None:
                    part.groups.append(cols)
            if part is None:
                first = int(piece.rows[0])
                part = Part(matrix, piece.transposed, use, [cols], first, first)
                parts.append(part)
            part.first = min(part.first, int(piece.rows[0]))
            part.last = max(part.last, int(piece.rows[-1]) + 1)
            piece.part = part
        return parts

    @staticmethod
    def _check_use(matrix: Matrix, use: Use) -> None:
        """Sums are int16, activations int8, and only a product can finish a softmax."""
        match matrix.definition:
            case SoftmaxRows() if use != "left":
                raise matrix.unsupported(
                    "the result of softmax goes only into a product, as its left operand"
                )
            case Contraction(residual=residual) if residual is not None and use not in WIDE:
                raise matrix.unsupported("no engine multiplies a sum that no norm has scaled down")
            case Contraction(activation=name) if name is not None and use == "stream":
                raise matrix.unsupported("no engine adds or normalizes the result of an activation")

    def _ask_operands(self, part: Part) -> None:
        matrix, node = part.matrix, part.matrix.node
        rows = slice(part.first, part.last)
        match matrix.definition:
            case Contraction() as c:
                if c.b is None:
                    part.k_order = self._column_order(c.a[rows])
                    a = c.a[rows][:, part.k_order]
                    part.reads["a"] = self._ask(a, "operand", node)
                else:
                    self._check_softmax(part, c)
                    part.reads["a"] = self._ask(c.a[rows], "left", node)
                    part.reads["b"] = self._ask(c.b[part.columns], "right", node)
                if c.residual is not None:
                    residual = c.residual[rows][:, part.columns]
                    residual = residual.T if part.transposed else residual
                    part.reads["residual"] = self._ask(residual, "stream", node)
            case Normalization(source):
                part.reads["source"] = self._ask(source[rows], "stream", node)
            case SoftmaxRows(source):
                part.reads["source"] = self._ask(source[rows], "scores", node)

    def _check_softmax(self, part: Part, c: Contraction) -> None:
        source = self._pool.sole(c.a)
        if source is not None and isinstance(source.definition, SoftmaxRows):
            if part.transposed:
                raise part.matrix.unsupported("no engine transposes the product of a softmax")
            if c.bias is not None or c.activation is not None:
                raise part.matrix.unsupported("no engine ends a softmax in a bias or an activation")

    def _column_order(self, ids: Ids) -> np.ndarray:
        """The order in which the columns of a block are easiest to read: weights can follow any."""
        given = np.arange(ids.shape[1])
        pieces = self._decompose(ids)
        if pieces is not None and len(pieces) == 1:
            return given
        ordered = np.argsort(ids[0], kind="stable")
        other = self._decompose(ids[:, ordered])
        if pieces is None or (other is not None and len(other) < len(pieces)):
            return ordered
        return given


def is_run(indices: np.ndarray) -> bool:
    return bool(np.all(np.diff(indices) == 1))


def _refuse(reader: Node | None, reason: str) -> ModelError:
    """The error for a block that cannot be read; no reader stands for the model's output."""
    if reader is None:
        return ModelError(f"the model's output cannot be handed to the host: {reason}")
    return UnsupportedError(reader, reason)
