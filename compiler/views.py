"""The views of an operation: what it reads and writes, and how to move them."""

from collections.abc import Callable
from dataclasses import replace

from gateformer.compiler.graph import View
from gateformer.compiler.quantized import Gain, QCopy, QGemm, QNorm, QOperation, QSoftmax


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
            return [gain.target for gain in (op.int8, op.int16) if gain is not None]


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
