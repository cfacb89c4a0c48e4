"""What works on rows: softmax, LayerNorm whole and in parts, means over tokens."""

import numpy as np

from gateformer.compiler.lowering_arithmetic import apply_function, normalize
from gateformer.compiler.lowering_context import Context, Result, operator
from gateformer.compiler.lowering_masks import feeds_products
from gateformer.compiler.lowering_matrices import (
    Affine,
    Definition,
    Ids,
    Masked,
    Pooled,
    SoftmaxRows,
    Symbol,
)
from gateformer.compiler.lowering_statistics import Operand, combine

PARTLY = "only some of its scores have an attention mask: not yet"


@operator("Softmax")
def _softmax(context: Context, inputs: list[Operand]) -> Result:
    ids = context.symbol(inputs[0])
    if context.node.attributes.get("axis", -1) not in (-1, ids.ndim - 1):
        raise context.unsupported("softmax runs over the last axis only")
    if not feeds_products(context.model, context.node):
        raise context.unsupported("softmax runs on the accelerator only in front of a product")
    blocks = [unmask(context, block) for block in ids.reshape(-1, *ids.shape[-2:])]
    if len({hidden for _, hidden in blocks}) > 1:
        raise context.unsupported(PARTLY)
    results = [
        context.pool.add(
            context.part_name(head, len(blocks)),
            context.node,
            block.shape,
            SoftmaxRows(block, hidden),
        )
        for head, (block, hidden) in enumerate(blocks)
    ]
    return Symbol(np.stack(results).reshape(ids.shape))


def unmask(context: Context, ids: Ids) -> tuple[Ids, bool]:
    """The scores of a softmax without the masks on them, and whether there are any. What is added
    to whole rows is left out too: no softmax notices it."""
    hidden = False
    while True:
        sources = context.pool.sources(ids)
        masks = [isinstance(matrix.definition, Masked) for matrix in sources]
        if any(masks) and not all(masks):
            raise context.unsupported(PARTLY)
        whole_rows = [_adds_to_rows(matrix.definition) for matrix in sources]
        if not all(masks) and not all(whole_rows):
            return ids, hidden
        below = np.empty_like(ids)
        for matrix in sources:
            definition = matrix.definition
            inside = (ids >= matrix.base) & (ids < matrix.base + matrix.rows * matrix.cols)
            local = ids[inside] - matrix.base
            assert isinstance(definition, Masked | Affine)
            below[inside] = definition.source.ravel()[local]
            if isinstance(definition, Masked):
                keys = np.broadcast_to(definition.keys, definition.source.shape).ravel()[local]
                if not np.array_equal(keys, np.nonzero(inside)[1]):
                    raise context.unsupported("its mask does not run over its last axis: not yet")
        ids, hidden = below, hidden or all(masks)


def _adds_to_rows(definition: Definition) -> bool:
    """Whether it adds the same to all of a row."""
    if not isinstance(definition, Affine) or not np.all(definition.scale == 1):
        return False
    offset = definition.offset
    return offset.ndim == 0 or bool(np.all(offset == offset[:, :1]))


@operator("IsNaN")
def _is_nan(context: Context, inputs: list[Operand]) -> Result:
    """False for softmaxes: at least one token always counts."""
    ids = context.symbol(inputs[0])
    matrices = context.pool.sources(ids)
    if not all(isinstance(matrix.definition, SoftmaxRows) for matrix in matrices):
        raise context.unsupported("no engine has this operator")
    return np.zeros(ids.shape, bool)


@operator("LayerNormalization")
def _layer_norm(context: Context, inputs: list[Operand]) -> Result:
    ids = context.symbol(inputs[0])
    axis = context.node.attributes.get("axis", -1)
    if axis not in (-1, ids.ndim - 1):
        raise context.unsupported("the norm runs over the last axis only")
    width = ids.shape[-1]
    gain = np.broadcast_to(context.constant(inputs[1], "a gain"), width)
    bias = np.zeros(width)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = np.broadcast_to(context.constant(inputs[2], "a bias"), width)
    epsilon = float(context.node.attributes.get("epsilon", 1e-5))
    return Symbol(normalize(context, ids, gain, bias, epsilon))


@operator("ReduceMean", "Sqrt", "Reciprocal", "Pow")
def _statistic(context: Context, inputs: list[Operand]) -> Result:
    """A step of a LayerNorm that was exported in parts, or a power of a single element."""
    first, second = inputs[0], inputs[1] if len(inputs) > 1 else None
    step = combine(context.node, first, second)
    if step is not None:
        return step
    if context.node.operator == "ReduceMean":
        return _pool(context, context.symbol(first), second)
    return apply_function(context, inputs)


def _pool(context: Context, ids: Ids, axes_input: Operand) -> Symbol:
    """The mean over all axes but the last and those of size 1."""
    axes = context.node.attributes.get("axes", axes_input)
    reduced = range(ids.ndim) if axes is None else [int(axis) % ids.ndim for axis in axes]
    kept = [axis for axis in range(ids.ndim) if ids.shape[axis] > 1 and axis not in reduced]
    if kept != [ids.ndim - 1]:
        raise context.unsupported("no engine takes means but LayerNorm's and over all tokens")
    rows = ids.reshape(-1, ids.shape[-1])
    pooled = context.pool.add(context.name, context.node, (1, rows.shape[1]), Pooled(rows))
    return Symbol(pooled.reshape(context.model.values[context.name].shape))
