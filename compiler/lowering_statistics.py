"""LayerNorm that was exported in parts: mean, centered values, variance, deviation, quotient."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gateformer.compiler.importer import Node
from gateformer.compiler.lowering_matrices import Ids, Symbol

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


OUTSIDE = "no engine has this operator outside LayerNorm; RMSNorm: not yet"
"""Why a statistic that ends in no LayerNorm is refused."""

Operand = Symbol | Statistic | np.ndarray | None
"""What an operator gets: a computed tensor, a row statistic, a constant, or an absent input."""


def combine(node: Node, left: Operand, right: Operand = None) -> Statistic | None:
    """The next step, or None when the operator makes none of its operands."""
    match node.operator, left, right:
        case "ReduceMean", Symbol(ids), _ if _over_last_axis(node, ids, right):
            return Statistic("mean", ids, node)
        case "ReduceMean", Statistic("square", ids), _ if _over_last_axis(node, ids, right):
            return Statistic("variance", ids, node)
        case "Sub", Symbol(ids), Statistic("mean", other) if np.array_equal(ids, other):
            return Statistic("centered", ids, node)
        case "Pow", Statistic("centered", ids), np.ndarray() as power if np.all(power == 2):
            return Statistic("square", ids, node)
        case "Mul", Statistic("centered", ids), Statistic("centered", other) if np.array_equal(
            ids, other
        ):
            return Statistic("square", ids, node)
        case ("Add", Statistic("variance", ids, _, epsilon), np.ndarray() as more) | (
            "Add",
            np.ndarray() as more,
            Statistic("variance", ids, _, epsilon),
        ) if more.size == 1:
            return Statistic("variance", ids, node, epsilon + float(more.reshape(())))
        case "Sqrt", Statistic("variance", ids, _, epsilon), _:
            return Statistic("deviation", ids, node, epsilon)
        case "Pow", Statistic("variance", ids, _, epsilon), np.ndarray() as power:
            if np.all(power == 0.5):
                return Statistic("deviation", ids, node, epsilon)
            if np.all(power == -0.5):
                return Statistic("inverse deviation", ids, node, epsilon)
        case "Reciprocal", Statistic("deviation", ids, _, epsilon), _:
            return Statistic("inverse deviation", ids, node, epsilon)
        case "Div", np.ndarray() as one, Statistic("deviation", ids, _, epsilon) if np.all(
            one == 1
        ):
            return Statistic("inverse deviation", ids, node, epsilon)
        case (
            ("Div", Statistic("centered", ids), Statistic("deviation", other, _, epsilon))
            | ("Mul", Statistic("centered", ids), Statistic("inverse deviation", other, _, epsilon))
            | ("Mul", Statistic("inverse deviation", other, _, epsilon), Statistic("centered", ids))
        ) if np.array_equal(ids, other):
            return Statistic("normalized", ids, node, epsilon)
    return None


def _over_last_axis(node: Node, ids: Ids, axes_input: Operand) -> bool:
    """Whether a ReduceMean takes the last axis alone and keeps it."""
    axes = node.attributes.get("axes", axes_input)
    if axes is None or not node.attributes.get("keepdims", 1):
        return False
    return [int(axis) % ids.ndim for axis in axes] == [ids.ndim - 1]
