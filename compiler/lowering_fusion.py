"""Fuses scales, biases, activations and sums into the product or norm that they follow."""

from dataclasses import replace

import numpy as np

from gateformer.compiler.activations import recognize
from gateformer.compiler.lowering_matrices import (
    Affine,
    Contraction,
    Definition,
    Elementwise,
    Ids,
    Masked,
    Matrix,
    Normalization,
    Pool,
    Pooled,
    Sum,
    operands,
)


def reachable(pool: Pool, outputs: list[Ids]) -> list[Matrix]:
    """The matrices that the outputs depend on, each after those that it reads.

    The order follows the outputs' operands depth first, so that what is computed is soon used.
    """
    order: list[Matrix] = []
    state: dict[int, bool] = {}
    stack = [matrix for ids in reversed(outputs) for matrix in reversed(pool.sources(ids))]
    while stack:
        matrix = stack[-1]
        if matrix.base in state:
            stack.pop()
            if not state[matrix.base]:
                state[matrix.base] = True
                order.append(matrix)
            continue
        state[matrix.base] = False
        reads = operands(matrix.definition)
        if isinstance(matrix.definition, Contraction) and matrix.definition.residual is not None:
            reads = reads[-1:] + reads[:-1]
        for ids in reversed(reads):
            stack += [m for m in reversed(pool.sources(ids)) if not state.get(m.base, False)]
    return order


def fuse(pool: Pool, outputs: list[Ids]) -> None:
    """Replaces every Affine, Elementwise, Sum and Pooled, or raises UnsupportedError."""
    order = reachable(pool, outputs)
    uses: dict[int, np.ndarray] = {}
    for ids in [*outputs, *(ids for m in order for ids in operands(m.definition))]:
        _count(pool, uses, ids)
    for matrix in order:
        _fuse_one(pool, uses, matrix)
    for matrix in reachable(pool, outputs):
        _pool_last(pool, matrix)
    for matrix in reachable(pool, outputs):
        if isinstance(matrix.definition, Pooled):
            raise matrix.unsupported("only a product with weights may follow a mean over tokens")


def _pool_last(pool: Pool, matrix: Matrix) -> None:
    """Weights times a mean of rows: the same as the mean of the weights times every row, which is a
    product with a constant row."""
    contraction = matrix.definition
    if not isinstance(contraction, Contraction) or contraction.weight is None:
        return
    pooled = pool.sole(contraction.a)
    if pooled is None or not isinstance(pooled.definition, Pooled):
        return
    if not np.array_equal(contraction.a, pooled.ids):
        return
    source, weight = pooled.definition.source, contraction.weight
    shape = (len(source), len(weight))
    definition = Contraction(source, weight=weight, steps=contraction.steps)
    each = pool.add(f"{matrix.name}/each", matrix.node, shape, definition)
    share = pool.constant(f"{matrix.name}/share", np.full((1, len(source)), 1 / len(source)))
    matrix.definition = replace(contraction, a=share, b=each.T, weight=None, steps=None)


def _count(pool: Pool, uses: dict[int, np.ndarray], ids: Ids) -> None:
    """Counts one reader for every element in ids."""
    sources = pool.sources(ids)
    for matrix in sources:
        size = matrix.rows * matrix.cols
        local = (ids - matrix.base).ravel()
        if len(sources) > 1:
            local = local[(local >= 0) & (local < size)]
        read = np.zeros(size, bool)
        read[local] = True
        uses[matrix.base] = uses.get(matrix.base, np.zeros(size, np.int16)) + read


def _fuse_one(pool: Pool, uses: dict[int, np.ndarray], matrix: Matrix) -> None:
    definition = matrix.definition
    match definition:
        case Affine():
            fused = None
            source = _exclusive(pool, uses, definition.source)
            if source is not None:
                fused = _scaled(pool, matrix, source, definition)
            reason = "no engine scales or shifts anything but the result of a product or a norm"
            if definition.scale.ndim and len(definition.scale) > 1:
                reason = "no engine scales every token differently; rotary positions: not yet"
        case Elementwise():
            fused = None
            name = recognize(definition.function)
            source = _exclusive(pool, uses, definition.source)
            if name and isinstance(source, Contraction) and _bare(source):
                fused = replace(source, activation=name)
            reason = (
                "an activation runs only on the result of a product that nothing else reads"
                if name
                else "no activation table is known for this function"
            )
        case Sum():
            fused = _added(pool, uses, definition, matrix)
            reason = (
                "no engine adds two tensors unless one is the result of a product "
                "that nothing else reads"
            )
        case Masked():
            fused = None
            reason = "a mask runs only right in front of a softmax"
        case _:
            return
    if fused is None:
        raise matrix.unsupported(reason)
    reads = {id(m) for ids in operands(fused) for m in pool.sources(ids)}
    made = [m for ids in operands(definition) for m in pool.sources(ids)]
    matrix.fused += [m for m in made if id(m) not in reads]
    matrix.definition = fused


def _exclusive(pool: Pool, uses: dict[int, np.ndarray], block: Ids) -> Definition | None:
    """The definition of a block of one matrix, if nothing but one reader reads that block."""
    matrix = pool.sole(block)
    if matrix is None:
        return None
    local = block - matrix.base
    if not np.all(uses[matrix.base][local.ravel()] == 1):
        return None
    definition = matrix.definition
    rows, cols = local[:, 0] // matrix.cols, local[0] % matrix.cols
    if not np.array_equal(local, rows[:, None] * matrix.cols + cols):
        return None
    if local.size == matrix.rows * matrix.cols:
        return definition
    return definition.block(rows, cols) if isinstance(definition, Contraction) else None


def _bare(definition: Contraction) -> bool:
    return definition.activation is None and definition.residual is None


def _scaled(pool: Pool, matrix: Matrix, source: Definition, affine: Affine) -> Definition | None:
    scale, offset = affine.scale, affine.offset
    shape = affine.source.shape
    if scale.ndim == 2 and len(scale) > 1:
        return None
    by_row = offset.ndim == 2 and len(offset) > 1
    if isinstance(source, Normalization) and not by_row:
        width = shape[1]
        return replace(
            source,
            gain=np.broadcast_to(source.gain * scale.reshape(-1), width),
            bias=np.broadcast_to(source.bias * scale.reshape(-1) + offset.reshape(-1), width),
        )
    if not isinstance(source, Contraction) or source.activation is not None:
        return None
    if source.residual is not None and not (np.all(scale == 1) and not by_row):
        return None
    if source.weight is None and scale.ndim:
        return None
    bias = np.zeros(shape[1]) if source.bias is None else source.bias
    bias = bias * scale.reshape(-1)
    residual = source.residual
    if by_row:
        residual = pool.constant(f"{matrix.name}/constant", offset)
    else:
        bias = bias + offset.reshape(-1)
    result = replace(source, bias=bias if np.any(bias) else None, residual=residual)
    if result.weight is None:
        return replace(result, factor=result.factor * float(scale))
    steps = result.steps if result.steps is None else result.steps * np.abs(scale).reshape(-1)
    return replace(result, weight=result.weight * scale.reshape(-1, 1), steps=steps)


def _added(
    pool: Pool, uses: dict[int, np.ndarray], definition: Sum, matrix: Matrix
) -> Definition | None:
    """One operand becomes the other one's residual; the operand computed last is tried first."""
    pairs = [(definition.left, definition.right), (definition.right, definition.left)]
    pairs.sort(key=lambda pair: -int(pair[0].max()))
    for branch, stream in pairs:
        source = _exclusive(pool, uses, branch)
        if not isinstance(source, Contraction) or source.activation is not None:
            continue
        if source.residual is None:
            return replace(source, residual=stream)
        inner = pool.add(matrix.name, matrix.node, branch.shape, Sum(source.residual, stream))
        added = _added(pool, uses, Sum(source.residual, stream), matrix)
        if added is not None:
            new = pool.of(int(inner.flat[0]))
            new.definition = added
            uses[new.base] = np.ones(inner.size, np.int16)
            return replace(source, residual=inner)
    return None
