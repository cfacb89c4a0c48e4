"""ONNX operators: element arrays in, element arrays out. Here those that only move elements; the
others register themselves where they are imported."""

import numpy as np

from gateformer.compiler import (  # noqa: F401 - they register their handlers
    lowering_arithmetic,
    lowering_einsum,
    lowering_products,
    lowering_rows,
)
from gateformer.compiler.lowering_context import HANDLERS, MOVEMENT, Context, Result, operator
from gateformer.compiler.lowering_masks import constant_mask, feeds_softmax
from gateformer.compiler.lowering_matrices import Symbol
from gateformer.compiler.lowering_statistics import Operand, Statistic

NO_CHOICE = "no engine chooses between elements"


def apply(context: Context, inputs: list[Operand]) -> list[Result]:
    """The node's outputs. Raises UnsupportedError when no engine can do it."""
    node = context.node
    if node.operator in MOVEMENT:
        return _move(context, inputs)
    handler = HANDLERS.get(node.operator)
    if handler is None:
        raise context.unsupported("no engine has this operator")
    if any(node.outputs[1:]) and node.operator != "Dropout":
        raise context.unsupported("no engine computes its further outputs")
    return [handler(context, inputs)]


def _move(context: Context, inputs: list[Operand]) -> list[Result]:
    """Applies the operator to the numbers of the elements."""
    node = context.node
    if node.operator == "Concat":
        # Here, not by name: a constant that occurs twice is two matrices.
        parts = [context.symbol(operand) for operand in inputs]
        return [Symbol(np.concatenate(parts, node.attributes["axis"]))]
    feeds = {}
    for index, (name, operand) in enumerate(zip(node.inputs, inputs, strict=True)):
        if index == 0:
            feeds[name] = context.symbol(operand)
        elif isinstance(operand, np.ndarray):
            feeds[name] = operand
        elif operand is not None:
            raise context.unsupported("where it moves data is known only at run time")
    return [Symbol(ids) for ids in context.evaluate(feeds)]


@operator("Identity", "Dropout")
def _identity(context: Context, inputs: list[Operand]) -> Result:
    training = inputs[2] if len(inputs) > 2 else None
    if isinstance(training, np.ndarray) and training.any():
        raise context.unsupported("it is in training mode; export the model for inference")
    return Symbol(context.symbol(inputs[0]))


@operator("Where")
def _where(context: Context, inputs: list[Operand]) -> Result:
    """Takes one operand whole; masks of attention scores are found before."""
    condition = inputs[0]
    if not isinstance(condition, np.ndarray):
        raise context.unsupported(NO_CHOICE)
    chosen = 1 if condition.all() else 2
    if condition.any() and not condition.all():
        if feeds_softmax(context.model, context.node):
            counts = condition if isinstance(inputs[1], Symbol) else ~condition
            raise context.unsupported(constant_mask(counts) or NO_CHOICE)
        raise context.unsupported(NO_CHOICE)
    shape = context.model.values[context.name].shape
    return Symbol(np.broadcast_to(context.symbol(inputs[chosen]), shape))


@operator("Pad")
def _pad(context: Context, inputs: list[Operand]) -> Result:
    pads = inputs[1] if len(inputs) > 1 else None
    if not isinstance(pads, np.ndarray) or pads.any():
        raise context.unsupported("no engine pads a tensor; padded windows: not yet")
    return Symbol(context.symbol(inputs[0]))


@operator("Cast")
def _cast(context: Context, inputs: list[Operand]) -> Result:
    values = context.model.values
    kinds = {values[context.node.inputs[0]].dtype.kind, values[context.node.outputs[0]].dtype.kind}
    if kinds != {"f"}:
        raise context.unsupported("no engine converts between floats and integers")
    if isinstance(inputs[0], Statistic):
        return inputs[0]
    return Symbol(context.symbol(inputs[0]))
