"""Cuts products with weights where their results are read piece by piece, as heads read theirs.

Attention reads one head of queries, keys and values at a time. A product that makes all heads at
once keeps all of them alive; cut into pieces of a few heads, each piece can be made right before it
is read and its place is free again after that.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from gateformer.compiler.graph import Role, View, whole
from gateformer.compiler.quantized import (
    ChannelMap,
    QGemm,
    QOperation,
    QTensor,
    QuantizedGraph,
    Records,
)
from gateformer.compiler.views import map_views, views_read
from gateformer.spec.config import AcceleratorConfig

PORT_SHARE = 0.3
"""Most of the reads of local memory that a piece may take to bring its operands to the array: each
piece reads the operand that is no weight anew."""


def cut_pieces(graph: QuantizedGraph, config: AcceleratorConfig) -> QuantizedGraph:
    """The same graph with such products in pieces; a piece's tensor holds only its own columns (or
    rows, where the weights are the left operand)."""
    width = config.rows * config.cols * config.lanes / config.word_bytes / PORT_SHARE
    tensors = dict(graph.tensors)
    operations: list[QOperation] = []
    cut: dict[str, list[tuple[range, str]]] = {}
    """For each tensor in pieces, the columns (rows) of each piece and its tensor."""
    by_row: set[str] = set()

    def move(view: View) -> View:
        for part, name in cut.get(view.tensor, ()):
            if view.tensor in by_row and view.row in part:
                return replace(view, tensor=name, row=view.row - part.start)
            if view.tensor not in by_row and view.col in part:
                return replace(view, tensor=name, col=view.col - part.start)
        return view

    for op in graph.operations:
        moved = map_views(op, move)
        edges = _edges(graph, op, width)
        if not isinstance(moved, QGemm) or not edges:
            operations.append(moved)
            continue
        source = tensors.pop(moved.out.tensor)
        rows = graph.is_constant(moved.a)
        if rows:
            by_row.add(source.name)
        pieces = cut[source.name] = []
        for first, end in pairwise(edges):
            part, name = range(first, end), f"{source.name}/{first}"
            pieces.append((part, name))
            tensors[name] = _tensor(source, name, part, rows=rows)
            operations.append(_piece(moved, name, part, rows=rows))
    return replace(graph, tensors=tensors, operations=tuple(operations))


def _edges(graph: QuantizedGraph, op: QOperation, width: float) -> list[int]:
    """Where the result of an operation is cut: columns, or rows where the weights are its left
    operand, with both ends; nothing where it stays whole."""
    if not isinstance(op, QGemm) or op.residual is not None or isinstance(op.records, str):
        return []
    side, tensor = graph.weight_side(op), graph.tensors[op.out.tensor]
    left = side == "left"
    if side is None or left != op.by_row or tensor.role is not Role.VALUE:
        return []
    if op.out != whole(tensor):
        return []
    reads = [view for other in graph.operations for view in views_read(other)]
    parts = sorted(
        {
            (view.row, view.row + view.rows) if left else (view.col, view.col + view.cols)
            for view in reads
            if view.tensor == tensor.name
        }
    )
    total = tensor.rows if left else tensor.cols
    if not parts or parts[0][0] != 0 or parts[-1][1] != total:
        return []
    if any(a[1] != b[0] for a, b in pairwise(parts)):
        return []
    edges = [0]
    for _, end in parts:
        if end - edges[-1] >= width or end == total:
            edges.append(end)
    return edges if len(edges) > 2 else []


def _tensor(source: QTensor, name: str, part: range, *, rows: bool) -> QTensor:
    if rows:
        return replace(source, name=name, rows=len(part))
    channels = source.channels
    if channels is not None:
        kept = slice(part.start, part.stop)
        channels = ChannelMap(channels.factors[kept], channels.offsets[kept])
    segment = min(source.segment, len(part))
    return replace(source, name=name, cols=len(part), segment=segment, channels=channels)


def _piece(op: QGemm, name: str, part: range, *, rows: bool) -> QGemm:
    if not rows:
        piece = column_piece(op, part)
        return replace(piece, out=replace(piece.out, tensor=name, col=0))
    a = replace(op.a, row=op.a.row + part.start, rows=len(part))
    out = replace(op.out, tensor=name, rows=len(part))
    return replace(_named(op, part), a=a, out=out)


def column_piece(op: QGemm, part: range) -> QGemm:
    """A product with weights on the right, of which only these columns are made."""
    b = replace(op.b, row=op.b.row + part.start, rows=len(part))
    out = replace(op.out, col=op.out.col + part.start, cols=len(part))
    return replace(_named(op, part), b=b, out=out)


def _named(op: QGemm, part: range) -> QGemm:
    """The product with a piece's name, and the records of its columns (or rows, if by row)."""
    records = op.records
    if isinstance(records, Records):
        kept = np.s_[part.start : part.stop]
        records = Records(records.bias[kept], records.multiplier[kept], records.selector[kept])
    return replace(op, name=f"{op.name}/{part.start}", records=records)
