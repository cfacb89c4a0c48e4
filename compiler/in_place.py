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
    """A tensor that may lie row by row where another one lies, and the operations during which
    both live."""

    source: str
    operations: range


def heirs(graph: QuantizedGraph) -> dict[str, Heir]:
    """For each result that may take a place, whose."""
    reads: dict[str, list[tuple[int, View]]] = {}
    writes: dict[str, list[tuple[int, View]]] = {}
    for index, op in enumerate(graph.operations):
        for view in views_read(op):
            reads.setdefault(view.tensor, []).append((index, view))
        for view in views_written(op):
            writes.setdefault(view.tensor, []).append((index, view))
    found: dict[str, Heir] = {}
    sources: set[str] = set()
    for target, written in writes.items():
        first = written[0][0]
        for source, read in reads.items():
            last = read[-1][0]
            if source == target or source in sources or last < first:
                continue
            if source not in writes or writes[source][-1][0] >= first:
                continue
            if _alike(graph, source, target) and _gives_way(graph, read, written):
                sources.add(source)
                found[target] = Heir(source, range(first, last + 1))
                break
    return found


def _gives_way(
    graph: QuantizedGraph, read: list[tuple[int, View]], written: list[tuple[int, View]]
) -> bool:
    """Whether elements are written only when those at the same place are read for the last time."""
    for start, place in written:
        pair = overwritten(graph.operations[start])
        for index, view in read:
            if index < start or not _meet(view, place):
                continue
            if index > start or pair is None or pair != (view, place):
                return False
            if replace(view, tensor="") != replace(place, tensor=""):
                return False
    return True


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


def _meet(a: View, b: View) -> bool:
    """Whether two blocks of equal matrices have elements in common."""
    return (
        a.row < b.row + b.rows
        and b.row < a.row + a.rows
        and a.col < b.col + b.cols
        and b.col < a.col + a.cols
    )


def _alike(graph: QuantizedGraph, source: str, target: str) -> bool:
    """Whether both are values of one shape."""
    a, b = graph.tensors[source], graph.tensors[target]
    return (a.rows, a.cols, a.segment, a.kind) == (
        b.rows,
        b.cols,
        b.segment,
        b.kind,
    ) and a.role is b.role is Role.VALUE
