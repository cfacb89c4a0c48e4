"""What an operation reads and writes: its views and tensors, who uses a tensor, how to move."""

from collections.abc import Callable
from dataclasses import replace

from gateformer.compiler.graph import View
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QuantizedGraph,
)


def views_read(op: QOperation) -> list[View]:
    """The matrices that an operation reads; of scale records only what they are used for."""
    match op:
        case QGemm():
            return [op.a, op.b, *([] if op.residual is None else [op.residual])]
        case QSoftmax() | QNorm() | QCopy():
            return [op.source]


def views_written(op: QOperation) -> list[View]:
    match op:
        case QGemm():
            return [op.out]
        case QSoftmax() | QCopy():
            return [op.target]
        case QNorm():
            return [gain.target for gain in op.gains]


def reads(op: QOperation) -> list[str]:
    """Names of the tensors an operation reads, scale records included."""
    names = [view.tensor for view in views_read(op)]
    if isinstance(op, QGemm) and isinstance(op.records, str):
        names.append(op.records)
    return names


def writes(op: QOperation) -> list[str]:
    """Names of the tensors an operation writes, scale records included."""
    names = [view.tensor for view in views_written(op)]
    if isinstance(op, QSoftmax):
        names.append(op.records)
    return names


def users(graph: QuantizedGraph, names: Callable[[QOperation], list[str]]) -> dict[str, list[int]]:
    """For each tensor the operations, places in the graph, of which `names` (`reads` or `writes`)
    tells it."""
    found: dict[str, list[int]] = {name: [] for name in graph.tensors}
    for index, op in enumerate(graph.operations):
        for name in names(op):
            found[name].append(index)
    return found


def map_views(op: QOperation, move: Callable[[View], View]) -> QOperation:
    """The operation with every view moved."""

    def gain(one: Gain | None) -> Gain | None:
        return None if one is None else replace(one, target=move(one.target))

    match op:
        case QGemm():
            residual = None if op.residual is None else move(op.residual)
            return replace(op, a=move(op.a), b=move(op.b), out=move(op.out), residual=residual)
        case QNorm():
            return replace(op, source=move(op.source), int8=gain(op.int8), int16=gain(op.int16))
        case QSoftmax() | QCopy():
            return replace(op, source=move(op.source), target=move(op.target))
