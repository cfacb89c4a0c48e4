"""Places matrices in tensors and writes the operations of the float Graph.

Readers are asked before what they read. Each reader asks for a block of element numbers; the pieces
of matrices that a block is made of become *parts*: a part is computed by one operation and only as
far as somebody asks for it. So unread rows are never computed, a fused projection falls into one
part for queries, keys and values each, and a matrix that is read transposed is computed transposed
(its product's operands swap their roles). Parts that one reader wants side by side share a tensor.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from gateformer.compiler.graph import (
    Copy,
    Gemm,
    Norm,
    Operation,
    Role,
    Softmax,
    Tensor,
    View,
    whole,
)
from gateformer.compiler.grid import Grid
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


class Layout:
    """Tensors and operations for matrices that are fused. outputs: element blocks [rows, cols] that
    the host reads, each with the node to blame. reserved: names of the host's tensors."""

    def __init__(
        self, pool: Pool, outputs: list[tuple[Ids, Node | None]], reserved: frozenset[str]
    ) -> None:
        self._pool = pool
        self._asked: dict[int, list[tuple[Piece, Use]]] = {}
        self._blocks: list[Block] = []
        self._parts: dict[int, list[Part]] = {}
        self._names: set[str] = set()
        self._reserved = reserved
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []
        self.inputs: list[tuple[str, str, np.ndarray]] = []
        """Of each INPUT tensor: its name, the ONNX value, the value's flat elements [rows,
        cols]."""
        self._order = reachable(pool, [ids for ids, _ in outputs])
        asked = [self._ask(ids, "output", node) for ids, node in outputs]
        for matrix in reversed(self._order):
            self._parts[matrix.base] = self._make_parts(matrix)
            for part in self._parts[matrix.base]:
                self._ask_operands(part)
        self._place()
        self._declare(asked)
        self.outputs = [self._view(block) for block in asked]
        for matrix in self._order:
            for part in self._parts[matrix.base]:
                self._emit(part)

    # -------------------------------------------------------------------------------- asking

    def _ask(self, ids: Ids, use: Use, reader: Node | None) -> Block:
        pieces = self._decompose(ids)
        if pieces is None:
            raise _refuse(
                reader,
                "what it reads is no block of rows and columns; "
                "window attention and other regrouping of tokens: not yet",
            )
        block = Block(reader, use, len(ids), ids.shape[1], pieces)
        self._blocks.append(block)
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
            if np.array_equal(grid, rows[:, None] * matrix.cols + cols) and _is_run(rows):
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

    # ------------------------------------------------------------------------------- placing

    def _place(self) -> None:
        """Gives every part its tensor: first the parts that share one."""
        joined = [block for block in self._blocks if len(block.pieces) > 1]
        for block in sorted(joined, key=lambda block: -block.rows * block.cols):
            self._join(block)
        for matrix in self._order:
            for part in self._parts[matrix.base]:
                if part.tensor is None:
                    name = self._unique(matrix.name)
                    part.tensor = Placement(name, *part.shape, part.segment, [part])

    def _join(self, block: Block) -> None:
        parts = [piece.part for piece in block.pieces if piece.part is not None]
        if all(part.tensor is not None for part in parts):
            return  # _view finds out whether it is the same arrangement
        segments = {part.segment for part in parts}
        side_by_side = block.pieces[-1].col > 0
        fits = (
            all(part.tensor is None for part in parts)
            and len(segments) == 1
            and len(set(map(id, parts))) == len(parts)
            and [piece.shape for piece in block.pieces] == [part.shape for part in parts]
        )
        if not fits:
            raise block.refuse("what it reads is put together in a way that no engine can write")
        name = self._unique(_common([part.matrix.name for part in parts]))
        segment = segments.pop()
        if not side_by_side and segment != block.cols:
            raise block.refuse("it joins rows of tensors that are split into heads")
        tensor = Placement(name, block.rows, block.cols, segment, parts)
        for piece, part in zip(block.pieces, parts, strict=True):
            part.tensor, part.row, part.col = tensor, piece.row, piece.col

    def _unique(self, name: str) -> str:
        name = f"{name}/matrix" if name in self._reserved else name
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}#{count}"
        self._names.add(candidate)
        return candidate

    def _declare(self, outputs: list[Block]) -> None:
        """Makes the tensors."""
        read_by_host = {
            id(piece.part.tensor) for block in outputs for piece in block.pieces if piece.part
        }
        for matrix in self._order:
            for part in self._parts[matrix.base]:
                placement = part.tensor
                assert placement is not None
                if placement.name in self.tensors:
                    continue
                role, data = Role.VALUE, None
                if id(placement) in read_by_host:
                    role = Role.OUTPUT
                elif len(placement.parts) == 1 and isinstance(matrix.definition, Constant):
                    role, data = Role.CONSTANT, self._constant(part, matrix.definition)
                elif len(placement.parts) == 1 and isinstance(matrix.definition, Input):
                    role = Role.INPUT
                self.tensors[placement.name] = Tensor(
                    placement.name,
                    placement.rows,
                    placement.cols,
                    role,
                    placement.segment,
                    data,
                    grid=self._grid(placement),
                )

    def _grid(self, placement: Placement) -> Grid | None:
        """The grid of a tensor whose parts all lie on it."""
        grids = [
            self._pool.grid(part.matrix, slice(part.first, part.last), part.columns)
            for part in placement.parts
        ]
        return grids[0] if all(grid == grids[0] for grid in grids) else None

    @staticmethod
    def _constant(part: Part, definition: Constant) -> np.ndarray:
        data = definition.data[part.first : part.last, part.columns]
        return np.ascontiguousarray(data.T if part.transposed else data)

    def _view(self, block: Block) -> View:
        """Where a block stands. All its pieces must stand as they were asked for."""
        first: View | None = None
        for piece in block.pieces:
            part = piece.part
            assert part is not None and part.tensor is not None
            row = int(piece.rows[0]) - part.first
            columns = part.columns
            col = int(np.flatnonzero(columns == piece.cols[0])[0])
            if not np.array_equal(columns[col : col + len(piece.cols)], piece.cols):
                raise block.refuse("what it reads is no block of rows and columns")
            if piece.transposed:
                row, col = col, row
            row, col = part.row + row - piece.row, part.col + col - piece.col
            view = View(part.tensor.name, row, block.rows, col, block.cols)
            first = first or view
            if view != first:
                raise block.refuse("what it reads is put together in two different ways")
        assert first is not None
        tensor = self.tensors[first.tensor]
        a_segment = first.cols == tensor.segment and first.col % tensor.segment == 0
        if not a_segment and first.cols != tensor.cols:
            raise block.refuse("it reads some of the columns of a tensor")
        return first

    # ------------------------------------------------------------------------------ emitting

    def _emit(self, part: Part) -> None:
        matrix, placement = part.matrix, part.tensor
        assert placement is not None
        rows, cols = part.shape
        out = View(placement.name, part.row, rows, part.col, cols)
        name = placement.name if len(placement.parts) == 1 else self._unique(matrix.name)
        reads = {key: self._view(block) for key, block in part.reads.items()}
        match matrix.definition:
            case Contraction() as c:
                self.operations.append(self._gemm(part, c, name, reads, out))
            case Normalization() as n:
                self._unsplit(part, reads["source"], out)
                gain, bias = n.gain, n.bias
                self.operations.append(
                    Norm(name, reads["source"], out, gain, bias, n.epsilon, matrix.nodes)
                )
            case SoftmaxRows():
                self._unsplit(part, reads["source"], out)
                self.operations.append(Softmax(name, reads["source"], out, matrix.nodes))
            case Constant() as constant if self.tensors[placement.name].role != Role.CONSTANT:
                source = self._add_constant(f"{name}/value", self._constant(part, constant), cols)
                self.operations.append(Copy(name, whole(source), out))
            case Input(value):
                if self.tensors[placement.name].role != Role.INPUT:
                    raise matrix.unsupported("an input of the model goes nowhere but into products")
                elements = matrix.ids[part.first : part.last, part.columns] - matrix.base
                elements = elements.T if part.transposed else elements
                self.inputs.append((placement.name, value, elements))

    def _unsplit(self, part: Part, *views: View) -> None:
        """Norm and softmax rows must not have pads inside."""
        if part.transposed:
            raise part.matrix.unsupported("no engine transposes its result")
        for view in views:
            tensor = self.tensors[view.tensor]
            if view.cols != tensor.segment:
                raise part.matrix.unsupported("its rows are split into heads")

    def _gemm(
        self, part: Part, c: Contraction, name: str, reads: dict[str, View], out: View
    ) -> Gemm:
        residual = reads.get("residual")
        if residual is not None:
            self._same_segments(part, residual, out)
        a = reads["a"]
        if c.weight is not None:
            weight = _select(_select(c.weight, part.columns).T, part.k_order).T
            tensor = self.tensors[a.tensor]
            segment = tensor.segment if a.cols == tensor.cols else a.cols
            grid = None
            if c.steps is not None:
                steps = c.steps[part.columns]
                grid = Grid(steps, np.zeros(len(steps), np.int64), 8, 0)
            b = whole(self._add_constant(f"{name}/weight", weight, segment, grid))
        else:
            b = reads["b"]
            self._same_segments(part, a, b)
        bias = None if c.bias is None else c.bias[part.columns]
        if part.transposed:
            a, b = b, a
        by_row = part.transposed and bias is not None
        nodes = part.matrix.nodes
        return Gemm(name, a, b, out, bias, by_row, c.factor, c.activation, residual, nodes)

    def _same_segments(self, part: Part, one: View, other: View) -> None:
        segments = {min(v.cols, self.tensors[v.tensor].segment) for v in (one, other)}
        if len(segments) > 1:
            raise part.matrix.unsupported("its operands are split into heads differently")

    def _add_constant(
        self, name: str, data: np.ndarray, segment: int, grid: Grid | None = None
    ) -> Tensor:
        rows, cols = data.shape
        tensor = Tensor(self._unique(name), rows, cols, Role.CONSTANT, segment, data, grid=grid)
        self.tensors[tensor.name] = tensor
        return tensor


def _select(array: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Rows of an array: a view where they follow each other, since weights are large."""
    if rows is None:
        return array
    return array[rows[0] : rows[-1] + 1] if _is_run(rows) else array[rows]


def _is_run(indices: np.ndarray) -> bool:
    return bool(np.all(np.diff(indices) == 1))


def _common(names: list[str]) -> str:
    """The name of what `name/0`, `name/1`, ... are the parts of."""
    stems = {name.rpartition("/")[0] for name in names}
    return stems.pop() if len(stems) == 1 else names[0]


def _refuse(reader: Node | None, reason: str) -> ModelError:
    """The error for a block that cannot be read; no reader stands for the model's output."""
    if reader is None:
        return ModelError(f"the model's output cannot be handed to the host: {reason}")
    return UnsupportedError(reader, reason)
