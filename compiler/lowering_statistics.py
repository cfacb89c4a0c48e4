"""LayerNorm that was exported in parts: mean, centered values, variance, deviation, quotient."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gateformer.compiler.importer import Node
from gateformer.compiler.lowering_matrices import Ids

Kind = Literal[
    "mean", "centered", "square", "variance", "deviation", "inverse deviation", "normalized"
]


@dataclass(frozen=True)
class Statistic:
    """A quantity of the rows of `ids`: the kind says which step of a LayerNorm it is."""

    kind: Kind
    ids: Ids
    node: Node
    epsilon: float = 0.0


def combine(
    node: Node,
    left: Statistic | Ids | np.ndarray | None,
    right: Statistic | Ids | np.ndarray | None = None,
) -> Statistic | None:
    """The next step, or None when the operator makes none of its operands.

    An operand that is no Statistic is either element numbers (int64) or a constant (float).
    """

    def step(kind: Kind, of: Statistic | Ids, epsilon: float = 0.0) -> Statistic:
        ids = of.ids if isinstance(of, Statistic) else of
        return Statistic(kind, ids, node, epsilon)

    kinds = (_kind(left), _kind(right))
    match node.operator, *kinds:
        case "ReduceMean", "ids" | "square", _ if _over_last_axis(node, left, right):
            return step("mean" if kinds[0] == "ids" else "variance", left)
        case "Sub", "ids", "mean" if np.array_equal(left, right.ids):
            return step("centered", left)
        case "Pow", "centered", "constant" if np.all(right == 2):
            return step("square", left)
        case "Mul", "centered", "centered" if np.array_equal(left.ids, right.ids):
            return step("square", left)
        case "Add", "variance", "constant" if right.size == 1:
            return step("variance", left, left.epsilon + float(right.reshape(())))
        case "Add", "constant", "variance" if left.size == 1:
            return step("variance", right, right.epsilon + float(left.reshape(())))
        case "Sqrt", "variance", _:
            return step("deviation", left, left.epsilon)
        case "Pow", "variance", "constant" if np.all(right == 0.5):
            return step("deviation", left, left.epsilon)
        case "Pow", "variance", "constant" if np.all(right == -0.5):
            return step("inverse deviation", left, left.epsilon)
        case "Reciprocal", "deviation", _:
            return step("inverse deviation", left, left.epsilon)
        case "Div", "constant", "deviation" if np.all(left == 1):
            return step("inverse deviation", right, right.epsilon)
        case "Div", "centered", "deviation" if np.array_equal(left.ids, right.ids):
            return step("normalized", left, right.epsilon)
        case "Mul", "centered", "inverse deviation" if np.array_equal(left.ids, right.ids):
            return step("normalized", left, right.epsilon)
        case "Mul", "inverse deviation", "centered" if np.array_equal(left.ids, right.ids):
            return step("normalized", left, left.epsilon)
    return None


def _kind(operand: Statistic | np.ndarray | None) -> str:
    if operand is None:
        return "none"
    if isinstance(operand, Statistic):
        return operand.kind
    return "constant" if operand.dtype.kind == "f" else "ids"


def _over_last_axis(
    node: Node, operand: Statistic | Ids | None, axes_input: np.ndarray | None
) -> bool:
    """Whether a ReduceMean takes the last axis alone and keeps it."""
    ids = operand.ids if isinstance(operand, Statistic) else operand
    axes = node.attributes.get("axes", axes_input)
    if ids is None or axes is None or not node.attributes.get("keepdims", 1):
        return False
    return [int(axis) % ids.ndim for axis in axes] == [ids.ndim - 1]
