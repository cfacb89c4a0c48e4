"""What works on rows: softmax, LayerNorm whole and in parts, means over tokens."""

import numpy as np

from gateformer.compiler.lowering_arithmetic import apply_function, normalize
from gateformer.compiler.lowering_context import Context, Result, operator
from gateformer.compiler.lowering_masks import feeds_products
from gateformer.compiler.lowering_matrices import Ids, Pooled, SoftmaxRows, Symbol
from gateformer.compiler.lowering_statistics import Operand, combine


@operator("Softmax")
def _softmax(context: Context, inputs: list[Operand]) -> Result:
    ids = context.symbol(inputs[0])
    if context.node.attributes.get("axis", -1) not in (-1, ids.ndim - 1):
        raise context.unsupported("softmax runs over the last axis only")
    if not feeds_products(context.model, context.node):
        raise context.unsupported("softmax runs on the accelerator only in front of a product")
    blocks = ids.reshape(-1, *ids.shape[-2:])
    results = [
        context.pool.add(
            context.part_name(head, len(blocks)), context.node, block.shape, SoftmaxRows(block)
        )
        for head, block in enumerate(blocks)
    ]
    return Symbol(np.stack(results).reshape(ids.shape))


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
