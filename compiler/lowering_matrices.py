"""The matrices between an ONNX graph and the float Graph.

Every product, norm and softmax of the model makes matrices, and every element of every matrix has a
number. An ONNX tensor is an array of such numbers in the tensor's shape, so that whatever moves
data without computing (Reshape, Transpose, Split, Concat, ...) is the same operation on the array
of numbers, and which matrix blocks an operation reads is seen from the numbers alone.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from gateformer.compiler.activations import Function
from gateformer.compiler.grid import Grid
from gateformer.compiler.importer import Node
from gateformer.spec.errors import ModelError

Ids = np.ndarray
"""int64 element numbers."""


@dataclass(frozen=True)
class Symbol:
    """A tensor that the accelerator computes: the numbers of its elements, in its shape."""

    ids: Ids


class UnsupportedError(ModelError):
    """A node that no engine can do. It may still run on the host, where nothing follows it."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(f"{node}: {reason}")
        self.node = node
        self.reason = reason


@dataclass(frozen=True)
class Constant:
    data: np.ndarray


@dataclass(frozen=True)
class Input:
    """What the host hands over: the elements of ONNX tensor `value` in their order."""

    value: str


@dataclass(frozen=True)
class Contraction:
    """activation(factor * a @ b.T + bias) + residual, b being elements or constant weights."""

    a: Ids
    b: Ids | None = None
    weight: np.ndarray | None = None
    factor: float = 1.0
    bias: np.ndarray | None = None
    activation: str | None = None
    residual: Ids | None = None
    steps: np.ndarray | None = None
    """Of weights that a file holds as integers: the value of one step, for each row."""

    def block(self, rows: np.ndarray, cols: np.ndarray) -> "Contraction":
        """The definition of some rows and columns of the result."""
        return Contraction(
            a=self.a[rows],
            b=None if self.b is None else self.b[cols],
            weight=None if self.weight is None else self.weight[cols],
            factor=self.factor,
            bias=None if self.bias is None else self.bias[cols],
            activation=self.activation,
            residual=None if self.residual is None else self.residual[np.ix_(rows, cols)],
            steps=None if self.steps is None else self.steps[cols],
        )


@dataclass(frozen=True)
class Normalization:
    source: Ids
    gain: np.ndarray
    bias: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class Masked:
    """source behind an attention mask. keys: of every score, or of every column in one row, its
    index along the mask's last axis."""

    source: Ids
    keys: np.ndarray


@dataclass(frozen=True)
class SoftmaxRows:
    """masked: whether an attention mask lies on the scores in source."""

    source: Ids
    masked: bool = False


@dataclass(frozen=True)
class Pooled:
    """One row, the mean of all rows of source."""

    source: Ids


@dataclass(frozen=True)
class Affine:
    """source * scale + offset; both broadcast to the shape of source."""

    source: Ids
    scale: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Elementwise:
    """function of every element of source."""

    source: Ids
    function: Function


@dataclass(frozen=True)
class Sum:
    left: Ids
    right: Ids


Definition = (
    Constant
    | Input
    | Contraction
    | Normalization
    | Masked
    | SoftmaxRows
    | Pooled
    | Affine
    | Elementwise
    | Sum
)


def operands(definition: Definition) -> list[Ids]:
    """The element arrays that a definition reads."""
    match definition:
        case Contraction():
            reads = (definition.a, definition.b, definition.residual)
            return [ids for ids in reads if ids is not None]
        case Normalization() | Masked() | SoftmaxRows() | Pooled() | Affine() | Elementwise():
            return [definition.source]
        case Sum():
            return [definition.left, definition.right]
    return []


@dataclass(eq=False)
class Matrix:
    """Elements `base` to `base + rows * cols`, row by row.

    node: what to name in messages. fused: matrices whose computation became part of this one's.
    """

    name: str
    node: Node | None
    base: int
    rows: int
    cols: int
    definition: Definition
    fused: "list[Matrix]" = field(default_factory=list)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that are computed with it, in their order."""
        names = [name for matrix in self.fused for name in matrix.nodes]
        return tuple(dict.fromkeys([*names, *([self.node.name] if self.node else [])]))

    @property
    def ids(self) -> Ids:
        return np.arange(self.base, self.base + self.rows * self.cols).reshape(self.rows, self.cols)

    def unsupported(self, reason: str) -> ModelError:
        return UnsupportedError(self.node, reason) if self.node else ModelError(reason)


class Pool:
    """All matrices of a model under construction."""

    def __init__(self) -> None:
        self.matrices: list[Matrix] = []
        self.grids: list[Grid] = []
        """What a quantization-aware file rounds some elements to."""
        self._rounded: dict[int, np.ndarray] = {}
        """Of each matrix by its base: the index in `grids` of every element, -1 for none."""
        self._bases: list[int] = []
        self._size = 0

    def add(
        self, name: str, node: Node | None, shape: tuple[int, int], definition: Definition
    ) -> Ids:
        """A new matrix; returns its elements."""
        matrix = Matrix(name, node, self._size, *shape, definition)
        self.matrices.append(matrix)
        self._bases.append(self._size)
        self._size += shape[0] * shape[1]
        return matrix.ids

    def constant(self, name: str, array: np.ndarray) -> Ids:
        """A new constant matrix of the array's rows; returns elements in the array's shape."""
        data = np.asarray(array, np.float64)
        flat = data.reshape(-1, data.shape[-1]) if data.ndim else data.reshape(1, 1)
        return self.add(name, None, flat.shape, Constant(flat)).reshape(data.shape)

    def of(self, element: int) -> Matrix:
        return self.matrices[bisect_right(self._bases, element) - 1]

    def round(self, ids: Ids, grid: Grid) -> None:
        """Notes that elements lie on a grid; the last one that is noted counts."""
        for matrix in self.sources(ids):
            size = matrix.rows * matrix.cols
            local = (ids - matrix.base).ravel()
            indices = self._rounded.setdefault(matrix.base, np.full(size, -1, np.int32))
            indices[local[(local >= 0) & (local < size)]] = len(self.grids)
        self.grids.append(grid)

    def grid(self, matrix: Matrix, rows: slice, columns: np.ndarray) -> Grid | None:
        """The grid that a block of a matrix lies on, if it is one."""
        if matrix.base not in self._rounded:
            return None
        block = self._rounded[matrix.base].reshape(matrix.rows, matrix.cols)[rows][:, columns]
        found = [self.grids[index] if index >= 0 else None for index in np.unique(block)]
        return found[0] if all(grid == found[0] for grid in found) else None

    def sole(self, ids: Ids) -> Matrix | None:
        """The matrix that all elements belong to, if there is one."""
        first, last = self.of(int(ids.min())), self.of(int(ids.max()))
        return first if first is last else None

    def sources(self, ids: Ids) -> list[Matrix]:
        """The matrices that the elements belong to."""
        sole = self.sole(ids)
        if sole is not None:
            return [sole]
        indices = np.searchsorted(self._bases, ids.ravel(), "right") - 1
        return [self.matrices[index] for index in np.unique(indices)]
