"""Cuts feed-forward parts into bands of rows where their hidden values do not fit local memory.

The first product of a feed-forward part makes several values for each of its inputs. Where local
memory cannot hold them for all rows, either they pass through DRAM, or both products run band by
band, and a band's values are used up before the next band's are made. Then the weights come once
for each band, the values never leave, and what follows can begin with the first band's rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from gateformer.compiler.gemm_geometry import group_rows
from gateformer.compiler.graph import Role, View, whole
from gateformer.compiler.layout import Layout
from gateformer.compiler.quantized import Gain, QGemm, QNorm, QOperation, QTensor, QuantizedGraph
from gateformer.compiler.views import reads, users, writes
from gateformer.spec.config import AcceleratorConfig

ROOM_SHARE = 7 / 8
"""Part of local memory that may hold values; the rest stages what comes from DRAM."""

RIDGE_MARGIN = 1.25
"""Cycles of the array for each one of external memory, from which on it hides that weights come
again."""


@dataclass(frozen=True)
class _FeedForward:
    """Two products, places in the graph, of which the second reads all that the first makes."""

    first: int
    second: int


def cut_bands(graph: QuantizedGraph, config: AcceleratorConfig) -> QuantizedGraph:
    """The same graph with such parts in as few bands as fit, where the weights that come again are
    no more bytes than the values to DRAM and back. A norm of the result is cut likewise."""
    if config.dram != "readwrite":
        return graph
    tensors = dict(graph.tensors)
    operations: list[list[QOperation]] = [[op] for op in graph.operations]
    results: dict[str, list[int]] = {}
    for part in _feed_forwards(graph):
        edges = _edges(graph, part, config)
        if edges is None:
            continue
        first, second = _product(graph, part.first), _product(graph, part.second)
        hidden = tensors.pop(first.out.tensor)
        cut: list[QOperation] = []
        for start, end in pairwise(edges):
            band = band_tensor(hidden, start, end)
            tensors[band.name] = band
            cut += [
                replace(gemm_band(first, start, end), out=whole(band)),
                replace(gemm_band(second, start, end), a=whole(band)),
            ]
        operations[part.first], operations[part.second] = [], cut
        results[second.out.tensor] = [second.out.row + edge for edge in edges]
    if not results:
        return graph
    for index, op in enumerate(graph.operations):
        edges = results.get(op.source.tensor) if isinstance(op, QNorm) else None
        if isinstance(op, QNorm) and edges is not None:
            inside = {edge - op.source.row for edge in edges} & set(range(op.source.rows))
            cuts = sorted({0, op.source.rows, *inside})
            operations[index] = [norm_band(op, a, b) for a, b in pairwise(cuts)]
    return replace(graph, tensors=tensors, operations=tuple(op for ops in operations for op in ops))


def _product(graph: QuantizedGraph, index: int) -> QGemm:
    op = graph.operations[index]
    assert isinstance(op, QGemm)
    return op


def _feed_forwards(graph: QuantizedGraph) -> Iterator[_FeedForward]:
    readers, writers = users(graph, reads), users(graph, writes)
    for index, op in enumerate(graph.operations):
        if not isinstance(op, QGemm) or not _weighted(graph, op):
            continue
        name = op.out.tensor
        if writers[name] != [index] or len(readers[name]) != 1:
            continue
        second = graph.operations[readers[name][0]]
        tensor = graph.tensors[name]
        if (
            isinstance(second, QGemm)
            and _weighted(graph, second)
            and tensor.role is Role.VALUE
            and op.out == second.a == whole(tensor)
        ):
            yield _FeedForward(index, readers[name][0])


def _weighted(graph: QuantizedGraph, op: QGemm) -> bool:
    """Whether a product's right operand alone is weights."""
    plain = not op.by_row and not isinstance(op.records, str)
    return plain and graph.weight_side(op) == "right"


def _edges(
    graph: QuantizedGraph, part: _FeedForward, config: AcceleratorConfig
) -> list[int] | None:
    """The first row of each band and the end of the last; None where the part stays whole."""
    first, second = _product(graph, part.first), _product(graph, part.second)
    others = {first.a.tensor, second.out.tensor}
    values = sum(_bytes(graph, name, config) for name in others)
    hidden = _bytes(graph, first.out.tensor, config)
    weights = _bytes(graph, first.b.tensor, config) + _bytes(graph, second.b.tensor, config)
    rows = first.out.rows
    room = int(config.local_bytes * ROOM_SHARE)
    if hidden + values <= room:
        return None
    for count in range(2, rows + 1):
        edges = band_edges(graph, first.out, count, config)
        largest = max(b - a for a, b in pairwise(edges))
        hides = largest * config.bus_bytes >= RIDGE_MARGIN * config.macs
        if (count - 1) * weights > 2 * hidden and not hides:
            return None
        # Where the other values leave no room for a band, only their rows of the band are there.
        beside = values if 2 * values <= room else values * largest // rows
        if hidden * largest // rows + beside <= room:
            return edges
    return None


def _bytes(graph: QuantizedGraph, name: str, config: AcceleratorConfig) -> int:
    return Layout.of(graph.tensors[name], config.word_bytes).words * config.word_bytes


def band_edges(
    graph: QuantizedGraph, view: View, count: int, config: AcceleratorConfig
) -> list[int]:
    """Edges of so many bands, as equal as whole groups of rows allow; of whole samples in a
    batch."""
    samples = graph.tensors[view.tensor].samples
    unit = group_rows(config) if samples == 1 else view.rows // samples
    units = -(-view.rows // unit)
    return sorted({min(units * i // count * unit, view.rows) for i in range(count + 1)})


def band_tensor(tensor: QTensor, start: int, end: int) -> QTensor:
    """A tensor for the rows of another one from `start` to `end`: of one sample, or whole ones."""
    run = tensor.rows // tensor.samples
    token = tensor.row_token
    return replace(
        tensor,
        name=f"{tensor.name}/row{start}",
        rows=end - start,
        row_token=None if token is None else token + start % run,
        samples=max((end - start) // run, 1),
        sample=tensor.sample + start // run,
    )


def _rows(view: View, start: int, end: int) -> View:
    return replace(view, row=view.row + start, rows=end - start)


def gemm_band(op: QGemm, start: int, end: int) -> QGemm:
    """The rows of a product from `start` to `end`."""
    return replace(
        op,
        name=f"{op.name}/row{start}",
        a=_rows(op.a, start, end),
        out=_rows(op.out, start, end),
        residual=None if op.residual is None else _rows(op.residual, start, end),
    )


def norm_band(op: QNorm, start: int, end: int) -> QNorm:
    """The rows of a norm from `start` to `end`."""

    def gain(one: Gain | None) -> Gain | None:
        return None if one is None else replace(one, target=_rows(one.target, start, end))

    return replace(
        op,
        name=f"{op.name}/row{start}",
        source=_rows(op.source, start, end),
        int8=gain(op.int8),
        int16=gain(op.int16),
    )
