"""Einsum of two tensors: a product for every index that both share with the result."""

import numpy as np

from gateformer.compiler.lowering_context import Context, Result, operator
from gateformer.compiler.lowering_matrices import Ids, Symbol
from gateformer.compiler.lowering_products import linear, products
from gateformer.compiler.lowering_statistics import Operand


@operator("Einsum")
def _einsum(context: Context, inputs: list[Operand]) -> Result:
    equation = context.node.attributes["equation"].decode().replace(" ", "")
    terms, _, result = equation.partition("->")
    labels = terms.split(",")
    if len(labels) != 2 or not result or "." in equation:
        raise context.unsupported("only einsum of two tensors with a written result runs")
    left, right = labels
    if isinstance(inputs[0], np.ndarray):
        left, right, inputs = right, left, inputs[::-1]
    shared = [label for label in left if label in right]
    batch = [label for label in shared if label in result]
    summed = [label for label in shared if label not in result]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    order = [*batch, *rows, *columns]
    if (
        not summed
        or sorted(order) != sorted(result)
        or len({*left}) + len({*right}) != len(terms) - 1
    ):
        raise context.unsupported("only einsum that is a product of matrices runs")
    ids = _arranged(context.symbol(inputs[0]), left, batch, rows, summed)
    if isinstance(inputs[1], np.ndarray) and not batch:
        weight = _arranged(inputs[1], right, [], summed, columns)[0]
        out = linear(context, ids[0], weight).ids
    else:
        other = _arranged(context.symbol(inputs[1]), right, batch, columns, summed)
        out = products(context, ids, other)
    shape = context.model.values[context.name].shape
    sizes = dict(zip(result, shape, strict=True))
    out = out.reshape([sizes[label] for label in order])
    return Symbol(out.transpose([order.index(label) for label in result]))


def _arranged(
    array: np.ndarray, labels: str, batch: list[str], rows: list[str], columns: list[str]
) -> Ids:
    """The array as [batch, rows, columns], each the product of its axes."""
    moved = array.transpose([labels.index(label) for label in (*batch, *rows, *columns)])
    sizes = dict(zip(labels, array.shape, strict=True))
    counts = [int(np.prod([sizes[label] for label in group])) for group in (batch, rows, columns)]
    return moved.reshape(counts)
