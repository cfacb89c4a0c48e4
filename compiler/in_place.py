"""Which results may take the place of an operand that is read for the last time.

A product with a residual reads each element of it right before it writes the same element of the
sum; a softmax or norm reads a row before it writes that row. So they can write a result over an
operand of its shape: a residual stream stays where it is, and probabilities replace scores.
"""

from dataclasses import dataclass, replace

from gateformer.compiler.graph import Role, View
from gateformer.compiler.quantized import QGemm, QNorm, QOperation, QSoftmax, QuantizedGraph
from gateformer.compiler.views import views_read, views_written


@dataclass(frozen=True)
class Heir:
    """A tensor that may lie row by row where another one lies, and the operation at which both
    live."""

    source: str
    operation: int


def heirs(graph: QuantizedGraph) -> dict[str, Heir]:
    """For each result that may take a place, whose."""
    last = {view.tensor: i for i, op in enumerate(graph.operations) for view in views_read(op)}
    first: dict[str, int] = {}
    for index, op in enumerate(graph.operations):
        for view in views_written(op):
            first.setdefault(view.tensor, index)
    found: dict[str, Heir] = {}
    for index, op in enumerate(graph.operations):
        pair = overwritten(op)
        if pair is None:
            continue
        source, target = pair
        alone = last[source.tensor] == index and first[target.tensor] == index
        if alone and _alike(graph, source, target):
            found[target.tensor] = Heir(source.tensor, index)
    return found


def overwritten(op: QOperation) -> tuple[View, View] | None:
    """The operand that a result of an operation may replace, and that result."""
    match op:
        case QGemm(residual=View() as residual):
            return residual, op.out
        case QNorm() if op.int16 is not None:
            return op.source, op.int16.target
        case QSoftmax():
            return op.source, op.target
    return None


def _alike(graph: QuantizedGraph, source: View, target: View) -> bool:
    """Whether both are whole values of one shape."""
    a, b = graph.tensors[source.tensor], graph.tensors[target.tensor]
    whole = View("", 0, a.rows, 0, a.cols)
    return (
        (a.rows, a.cols, a.segment, a.kind) == (b.rows, b.cols, b.segment, b.kind)
        and a.role is b.role is Role.VALUE
        and all(replace(view, tensor="") == whole for view in (source, target))
    )
