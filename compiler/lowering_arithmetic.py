"""Functions of one element, and sums, products and quotients of two tensors."""

import numpy as np

from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.lowering_context import Context, Result, operator
from gateformer.compiler.lowering_elementwise import add, affine, elementwise, trace
from gateformer.compiler.lowering_masks import constant_mask, feeds_softmax
from gateformer.compiler.lowering_matrices import Ids, Normalization, Symbol, UnsupportedError
from gateformer.compiler.lowering_statistics import OUTSIDE, Operand, Statistic, combine

UNARY = frozenset(
    {
        "Abs",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
"""Functions of one element (further inputs constant), as far as the opset has them."""
GELU_FORMS = {b"none": "gelu", b"tanh": "gelu_tanh"}
"""Values of Gelu's attribute `approximate`; the reference implementation lacks the operator."""


@operator(*sorted(UNARY))
def apply_function(context: Context, inputs: list[Operand]) -> Result:
    ids = context.symbol(inputs[0])
    node = context.node
    rest = {
        name: context.constant(operand, "a parameter")
        for name, operand in zip(node.inputs[1:], inputs[1:], strict=True)
        if name
    }
    if any(parameter.size != 1 for parameter in rest.values()):
        raise context.unsupported("no engine applies a function with a parameter for each element")
    rest = {name: parameter.reshape(()) for name, parameter in rest.items()}

    def function(values: np.ndarray) -> np.ndarray:
        if node.operator == "Gelu":
            return ACTIVATIONS[GELU_FORMS[node.attributes.get("approximate", b"none")]](values)
        return context.evaluate({node.inputs[0]: values, **rest})[0]

    return Symbol(elementwise(context, *trace(context, ids), function))


@operator("Add", "Sub", "Mul", "Div")
def _binary(context: Context, inputs: list[Operand]) -> Result:
    left, right = inputs
    if isinstance(left, Statistic) or isinstance(right, Statistic):
        return _with_statistic(context, left, right)
    for constant in (left, right):
        if isinstance(constant, np.ndarray) and context.node.operator == "Add":
            _check_bias(context, constant)
    if isinstance(right, np.ndarray):
        return Symbol(_with_constant(context, context.symbol(left), right.astype(np.float64)))
    if isinstance(left, np.ndarray):
        return Symbol(_constant_first(context, left.astype(np.float64), context.symbol(right)))
    return _of_two(context, context.symbol(left), context.symbol(right))


def _check_bias(context: Context, array: np.ndarray) -> None:
    """Refuses constants that differ from key to key in front of a softmax."""
    if array.ndim and array.shape[-1] > 1 and feeds_softmax(context.model, context.node):
        reason = constant_mask(array)
        if reason is not None:
            raise context.unsupported(reason)


def _with_statistic(context: Context, left: Operand, right: Operand) -> Result:
    step = combine(context.node, left, right)
    if step is None:
        statistic = next(s for s in (left, right) if isinstance(s, Statistic))
        raise UnsupportedError(statistic.node, OUTSIDE)
    if step.kind == "normalized":
        width = step.ids.shape[-1]
        ids = normalize(context, step.ids, np.ones(width), np.zeros(width), step.epsilon)
        return Symbol(ids)
    return step


def _with_constant(context: Context, ids: Ids, array: np.ndarray) -> Ids:
    one, zero = np.ones(()), np.zeros(())
    match context.node.operator:
        case "Add":
            return affine(context, ids, one, array)
        case "Sub":
            return affine(context, ids, one, -array)
        case "Mul":
            return affine(context, ids, array, zero)
    if not np.all(array):
        raise context.unsupported("it divides by zero")
    return affine(context, ids, 1 / array, zero)


def _constant_first(context: Context, array: np.ndarray, ids: Ids) -> Ids:
    match context.node.operator:
        case "Add":
            return affine(context, ids, np.ones(()), array)
        case "Sub":
            return affine(context, ids, -np.ones(()), array)
        case "Mul":
            return affine(context, ids, array, np.zeros(()))
    if array.size != 1:
        raise context.unsupported("no engine divides a tensor by another")
    numerator = float(array.reshape(()))
    return elementwise(context, *trace(context, ids), lambda x: numerator / x)


def _of_two(context: Context, left: Ids, right: Ids) -> Symbol:
    left, right = np.broadcast_arrays(left, right)
    root, f = trace(context, left)
    other, g = trace(context, right)
    kind = context.node.operator
    if np.array_equal(root, other) and ((f, g) != (None, None) or kind == "Mul"):
        one, two = f or _same, g or _same
        functions = {
            "Add": lambda x: one(x) + two(x),
            "Sub": lambda x: one(x) - two(x),
            "Mul": lambda x: one(x) * two(x),
            "Div": lambda x: one(x) / two(x),
        }
        return Symbol(elementwise(context, root, None, functions[kind]))
    if kind == "Sub":
        right = affine(context, right, -np.ones(()), np.zeros(()))
    elif kind != "Add":
        raise context.unsupported(
            "no engine multiplies or divides two tensors element by element; "
            "gates and rotary positions: not yet"
        )
    return Symbol(add(context, left, right))


def _same(x: np.ndarray) -> np.ndarray:
    return x


def normalize(
    context: Context, ids: Ids, gain: np.ndarray, bias: np.ndarray, epsilon: float
) -> Ids:
    """LayerNorm over the last axis as a new matrix."""
    rows = ids.reshape(-1, ids.shape[-1])
    definition = Normalization(rows, gain, bias, epsilon)
    return context.pool.add(context.name, context.node, rows.shape, definition).reshape(ids.shape)
