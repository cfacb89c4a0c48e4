"""Places the parts of matrices in tensors and writes the operations of the float Graph.

Parts that one reader wants side by side share a tensor.
"""

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
from gateformer.compiler.lowering_matrices import (
    Constant,
    Contraction,
    Ids,
    Input,
    Normalization,
    Pool,
    SoftmaxRows,
)
from gateformer.compiler.lowering_parts import Block, Part, Parts, Placement, is_run


class Layout:
    """Tensors and operations for matrices that are fused. outputs: element blocks [rows, cols] that
    the host reads, each with the node to blame. reserved: names of the host's tensors."""

    def __init__(
        self, pool: Pool, outputs: list[tuple[Ids, Node | None]], reserved: frozenset[str]
    ) -> None:
        self._pool = pool
        self._names: set[str] = set()
        self._reserved = reserved
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []
        self.inputs: list[tuple[str, str, np.ndarray]] = []
        """Of each INPUT tensor: its name, the ONNX value, the value's flat elements [rows,
        cols]."""
        parts = Parts(pool, outputs)
        self._place(parts)
        self._declare(parts)
        self.outputs = [self._view(block) for block in parts.outputs]
        for part in parts.all:
            self._emit(part)

    # ------------------------------------------------------------------------------- placing

    def _place(self, parts: Parts) -> None:
        """Gives every part its tensor: first the parts that share one."""
        joined = [block for block in parts.blocks if len(block.pieces) > 1]
        for block in sorted(joined, key=lambda block: -block.rows * block.cols):
            self._join(block)
        for part in parts.all:
            if part.tensor is None:
                name = self._unique(part.matrix.name)
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

    def _declare(self, parts: Parts) -> None:
        """Makes the tensors."""
        read_by_host = {
            id(piece.part.tensor) for block in parts.outputs for piece in block.pieces if piece.part
        }
        for part in parts.all:
            placement, definition = part.tensor, part.matrix.definition
            assert placement is not None
            if placement.name in self.tensors:
                continue
            role, data = Role.VALUE, None
            if id(placement) in read_by_host:
                role = Role.OUTPUT
            elif len(placement.parts) == 1 and isinstance(definition, Constant):
                role, data = Role.CONSTANT, self._constant(part, definition)
            elif len(placement.parts) == 1 and isinstance(definition, Input):
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
            case SoftmaxRows() as softmax:
                self._unsplit(part, reads["source"], out)
                self.operations.append(
                    Softmax(name, reads["source"], out, matrix.nodes, softmax.masked)
                )
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
    return array[rows[0] : rows[-1] + 1] if is_run(rows) else array[rows]


def _common(names: list[str]) -> str:
    """The name of what `name/0`, `name/1`, ... are the parts of."""
    stems = {name.rpartition("/")[0] for name in names}
    return stems.pop() if len(stems) == 1 else names[0]
