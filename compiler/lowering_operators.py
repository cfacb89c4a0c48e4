"""ONNX operators: element arrays in, element arrays out. Here those that only move elements; the
others register themselves where they are imported."""

import numpy as np

from gateformer.compiler import (  # noqa: F401 - they register their handlers
    importer,
    lowering_arithmetic,
    lowering_products,
    lowering_rows,
)
from gateformer.compiler.lowering_context import HANDLERS, MOVEMENT, Context, Result, operator
from gateformer.compiler.lowering_matrices import Symbol
from gateformer.compiler.lowering_statistics import Operand, Statistic


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
    data = len(inputs) if node.operator == "Concat" else 1
    feeds = {}
    for index, (name, operand) in enumerate(zip(node.inputs, inputs, strict=True)):
        if index < data:
            feeds[name] = context.symbol(operand)
        elif isinstance(operand, np.ndarray):
            feeds[name] = operand
        elif operand is not None:
            raise context.unsupported("where it moves data is known only at run time")
    return [Symbol(ids) for ids in importer.evaluate(node, feeds, context.model.opset)]


@operator("Identity", "Dropout")
def _identity(context: Context, inputs: list[Operand]) -> Result:
    training = inputs[2] if len(inputs) > 2 else None
    if isinstance(training, np.ndarray) and training.any():
        raise context.unsupported("it is in training mode; export the model for inference")
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
