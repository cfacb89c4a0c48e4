"""Makes the int16 result of a norm later than its int8 one, where the two do not fit local memory.

A norm has an int8 result for the products that come next, and an int16 one, the residual stream,
which is added much later. Where the stream passes through DRAM, it takes longer to come and go than
the array is busy with the weights that are there when the norm begins. So such a norm is computed
twice: at once its int8 result alone, for which half as much moves, and the int16 one in bands of
rows between the products until it is read, while DRAM has little else to do.
"""

import math
from dataclasses import dataclass, replace
from itertools import accumulate

from gateformer.compiler.bands import norm_band
from gateformer.compiler.gemm_geometry import modest_group
from gateformer.compiler.graph import Role, whole
from gateformer.compiler.pieces import column_piece
from gateformer.compiler.quantized import QGemm, QNorm, QOperation, QuantizedGraph
from gateformer.compiler.residency import Residency
from gateformer.compiler.views import reads, users
from gateformer.spec.config import AcceleratorConfig


@dataclass(frozen=True)
class LateNorms:
    """A graph with norms in two, and their sources and int16 results: since these live longer than
    before, they are to lie in DRAM whole."""

    graph: QuantizedGraph
    streams: frozenset[str]


def put_off_norms(graph: QuantizedGraph, residency: Residency) -> LateNorms:
    """Cuts the norms in two whose source and int16 result, by the residency of the same graph, pass
    through DRAM; and a product behind one into pieces of columns, where it takes too long for the
    bands to come between other products."""
    streams: set[str] = set()
    for op in graph.operations:
        if not isinstance(op, QNorm) or op.int8 is None or op.int16 is None:
            continue
        if residency.spilled_rows(op.source) and residency.spilled_rows(op.int16.target):
            parted = _put_off(graph, op, residency.config)
            if parted is not graph:
                graph = parted
                streams |= {op.source.tensor, op.int16.target.tensor}
    return LateNorms(graph, frozenset(streams))


def _put_off(graph: QuantizedGraph, norm: QNorm, config: AcceleratorConfig) -> QuantizedGraph:
    first = graph.operations.index(norm) + 1
    end = _first_reader(graph, norm)
    between = graph.operations[first:end]
    bands = _bands(norm, modest_group(config))
    share = sum(map(_macs, between)) / (len(bands) + 1)
    if not share:
        return graph
    tensors = dict(graph.tensors)
    products: list[QOperation] = []
    for op in between:
        width = _piece_width(graph, op, share, math.lcm(config.cols, config.word_bytes))
        if width is None or not isinstance(op, QGemm):
            products.append(op)
            continue
        out = tensors[op.out.tensor]
        tensors[out.name] = replace(out, segment=width)
        starts = range(0, out.cols, width)
        products += [column_piece(op, range(start, start + width)) for start in starts]
    order: list[QOperation] = [replace(norm, int16=None)]
    put = 0
    for op, done in zip(products, accumulate(map(_macs, products)), strict=True):
        order.append(op)
        due = min(int(done / share), len(bands))
        order += bands[put:due]
        put = max(put, due)
    operations = (*graph.operations[: first - 1], *order, *bands[put:], *graph.operations[end:])
    return replace(graph, tensors=tensors, operations=operations)


def _first_reader(graph: QuantizedGraph, norm: QNorm) -> int:
    """The first operation that reads a norm's int16 result."""
    assert norm.int16 is not None
    readers = users(graph, reads)[norm.int16.target.tensor]
    return min(readers, default=len(graph.operations))


def _bands(norm: QNorm, rows: int) -> list[QNorm]:
    late = replace(norm, name=f"{norm.name}/int16", int8=None)
    total = norm.source.rows
    return [norm_band(late, row, min(row + rows, total)) for row in range(0, total, rows)]


def _macs(op: QOperation) -> int:
    return op.macs if isinstance(op, QGemm) else 0


def _piece_width(graph: QuantizedGraph, op: QOperation, share: float, unit: int) -> int | None:
    """Columns of the equally wide pieces, of whole units, into which a product with weights is cut
    that takes at least twice its share; None where it stays whole."""
    most = int(_macs(op) / share)
    if not isinstance(op, QGemm) or most < 2 or op.residual is not None:
        return None
    out = graph.tensors[op.out.tensor]
    if graph.weight_side(op) != "right" or op.by_row or out.role is not Role.VALUE:
        return None
    if op.out != whole(out) or out.segment != out.cols or out.cols % unit:
        return None
    units = out.cols // unit
    count = max(count for count in range(1, most + 1) if units % count == 0)
    return out.cols // count if count > 1 else None
