"""Matrices computed element by element, each in the layout of the matrix that it comes from."""

import numpy as np

from gateformer.compiler.activations import Function
from gateformer.compiler.lowering_context import Context
from gateformer.compiler.lowering_matrices import (
    Affine,
    Constant,
    Elementwise,
    Ids,
    Masked,
    Matrix,
    Sum,
)


def _blocks(context: Context, ids: Ids) -> list[tuple[Matrix, np.ndarray, Ids, Ids]]:
    """Splits elements by matrix: the matrix, which positions of ids belong to it (boolean), its
    rows and its columns that occur. Every one of those rows and columns must occur in full."""
    blocks = []
    sources = context.pool.sources(ids)
    for matrix in sources:
        local = ids - matrix.base
        size = matrix.rows * matrix.cols
        inside = np.ones(ids.shape, bool) if len(sources) == 1 else (local >= 0) & (local < size)
        seen = np.zeros(size, bool)
        seen[local[inside]] = True
        grid = seen.reshape(matrix.rows, matrix.cols)
        rows, cols = np.flatnonzero(grid.any(1)), np.flatnonzero(grid.any(0))
        if not grid[np.ix_(rows, cols)].all():
            raise context.unsupported("it treats the elements of a matrix differently")
        blocks.append((matrix, inside, rows, cols))
    return blocks


def _positions(matrix: Matrix, rows: np.ndarray, cols: np.ndarray, ids: Ids) -> np.ndarray:
    """Where elements of the matrix stand in the block of the given rows and columns, flat."""
    place = np.zeros((matrix.rows, matrix.cols), np.int64)
    place[np.ix_(rows, cols)] = np.arange(len(rows) * len(cols)).reshape(len(rows), -1)
    return place.ravel()[ids - matrix.base]


def affine(context: Context, ids: Ids, scale: np.ndarray, offset: np.ndarray) -> Ids:
    """ids * scale + offset as new matrices, each in the layout of the matrix it comes from."""
    shape = np.broadcast_shapes(ids.shape, scale.shape, offset.shape)
    if np.all(scale == 1) and np.all(offset == 0):
        return np.broadcast_to(ids, shape)
    ids = np.broadcast_to(ids, shape)
    sole = context.pool.sole(ids)
    if sole and isinstance(sole.definition, Elementwise) and scale.size == offset.size == 1:
        outer = _line(float(scale.reshape(())), float(offset.reshape(())))
        return elementwise(context, *trace(context, ids), outer)
    result = np.empty(shape, np.int64)
    blocks = _blocks(context, ids)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        name = context.part_name(index, len(blocks))
        positions = _positions(matrix, rows, cols, ids[inside])
        block_shape = (len(rows), len(cols))
        factors = _scatter(context, positions, np.broadcast_to(scale, shape)[inside], block_shape)
        offsets = _scatter(context, positions, np.broadcast_to(offset, shape)[inside], block_shape)
        block = matrix.ids[np.ix_(rows, cols)]
        if isinstance(matrix.definition, Constant):
            data = matrix.definition.data[np.ix_(rows, cols)] * factors + offsets
            new = context.pool.constant(name, data)
        else:
            definition = Affine(block, _squeeze(factors), _squeeze(offsets))
            new = context.pool.add(name, context.node, block_shape, definition)
        result[inside] = new.ravel()[positions]
    return result


def _scatter(
    context: Context, positions: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    flat = np.empty(shape[0] * shape[1])
    flat[positions] = values
    if not np.array_equal(flat[positions], values):
        raise context.unsupported("it makes different tensors of the same elements")
    return flat.reshape(shape)


def _squeeze(array: np.ndarray) -> np.ndarray:
    """The array as a scalar, as one row, or as it is: the smallest that broadcasts to the same."""
    if np.all(array == array.flat[0]):
        return array[0, 0]
    return array[:1] if np.all(array == array[:1]) else array


def trace(context: Context, ids: Ids) -> tuple[Ids, Function | None]:
    """The elements that `ids` are a function of, element by element, and that function."""
    function = None
    while (matrix := context.pool.sole(ids)) is not None:
        match matrix.definition:
            case Affine(source, scale, offset) if scale.ndim == 0 and offset.ndim == 0:
                function = _compose(function, _line(float(scale), float(offset)))
            case Elementwise(source, inner):
                function = _compose(function, inner)
            case _:
                break
        ids = source.ravel()[ids - matrix.base]
    return ids, function


def _line(scale: float, offset: float) -> Function:
    return lambda x: x * scale + offset


def _compose(outer: Function | None, inner: Function) -> Function:
    return inner if outer is None else lambda x: outer(inner(x))


def elementwise(
    context: Context,
    ids: Ids,
    inner: Function | None,
    outer: Function,
) -> Ids:
    """outer(inner(ids)) as new matrices, each in the layout of the matrix it comes from."""
    function = outer if inner is None else _compose(outer, inner)
    result = np.empty(ids.shape, np.int64)
    blocks = _blocks(context, ids)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        name = context.part_name(index, len(blocks))
        block = matrix.ids[np.ix_(rows, cols)]
        if isinstance(matrix.definition, Constant):
            data = function(matrix.definition.data[np.ix_(rows, cols)])
            new = context.pool.constant(name, data)
        else:
            definition = Elementwise(block, function)
            new = context.pool.add(name, context.node, block.shape, definition)
        result[inside] = new.ravel()[_positions(matrix, rows, cols, ids[inside])]
    return result


def add(context: Context, left: Ids, right: Ids) -> Ids:
    """left + right in the layout of the operand that was computed last: where one of them is the
    end of a branch, that is the branch, whose product can then add the other one."""
    stream, branch = sorted((left, right), key=lambda ids: int(ids.max()))
    result = np.empty(branch.shape, np.int64)
    blocks = _blocks(context, branch)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        positions = _positions(matrix, rows, cols, branch[inside])
        other = np.empty(len(rows) * len(cols), np.int64)
        other[positions] = stream[inside]
        if not np.array_equal(other[positions], stream[inside]):
            raise context.unsupported("it makes different tensors of the same elements")
        block = matrix.ids[np.ix_(rows, cols)]
        definition = Sum(other.reshape(block.shape), block)
        name = context.part_name(index, len(blocks))
        new = context.pool.add(name, context.node, block.shape, definition)
        result[inside] = new.ravel()[positions]
    return result


def masked(context: Context, ids: Ids) -> Ids:
    """Scores behind a mask over their last axis, as new matrices in the layout of the scores."""
    result = np.empty(ids.shape, np.int64)
    keys = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
    blocks = _blocks(context, ids)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        name = context.part_name(index, len(blocks))
        positions = _positions(matrix, rows, cols, ids[inside])
        block = matrix.ids[np.ix_(rows, cols)]
        own = _scatter(context, positions, keys[inside], block.shape)
        definition = Masked(block, own[:1] if np.all(own == own[:1]) else own)
        new = context.pool.add(name, context.node, block.shape, definition)
        result[inside] = new.ravel()[positions]
    return result
