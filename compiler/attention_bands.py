"""Cuts attention into bands of queries where the scores of a head take much of local memory.

Scores are as many as queries times keys. In bands of queries few of them live at once: a band's
scores are made, become probabilities and are used up before the next band's are made, from keys and
values that stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from gateformer.compiler.bands import band_edges, band_tensor, gemm_band
from gateformer.compiler.graph import whole
from gateformer.compiler.layout import Layout
from gateformer.compiler.quantized import QGemm, QOperation, QSoftmax, QuantizedGraph
from gateformer.compiler.views import reads, users, writes
from gateformer.spec.config import AcceleratorConfig

LARGE_SHARE = 5
"""Scores of a head are cut that take more than such a part of local memory."""
BAND_SHARE = 8
"""A band's take at most such a part."""


@dataclass(frozen=True)
class _Head:
    """Scores, softmax and the product with values: places in the graph."""

    scores: int
    softmax: int
    mix: int


def cut_attention(graph: QuantizedGraph, config: AcceleratorConfig) -> QuantizedGraph:
    """The same graph with such attention in bands."""
    tensors = dict(graph.tensors)
    operations: list[list[QOperation]] = [[op] for op in graph.operations]
    for head in _heads(graph):
        scores, softmax, mix = (
            graph.operations[index] for index in (head.scores, head.softmax, head.mix)
        )
        assert isinstance(scores, QGemm) and isinstance(mix, QGemm)
        assert isinstance(softmax, QSoftmax)
        words = Layout.of(graph.tensors[scores.out.tensor], config.word_bytes).words
        if words * LARGE_SHARE <= config.local_words:
            continue
        edges = band_edges(graph, scores.out, -(-words * BAND_SHARE // config.local_words), config)
        values = [tensors.pop(view.tensor) for view in (scores.out, mix.a)]
        records = tensors.pop(softmax.records)
        cut: list[QOperation] = []
        for start, end in pairwise(edges):
            made, used, scale = (band_tensor(t, start, end) for t in (*values, records))
            tensors |= {t.name: t for t in (made, used, scale)}
            source, target = whole(made), whole(used)
            cut += [
                replace(gemm_band(scores, start, end), out=source),
                replace(
                    softmax,
                    name=f"{softmax.name}/row{start}",
                    source=source,
                    target=target,
                    records=scale.name,
                    bound=softmax.bound + start * softmax.causal,
                ),
                replace(gemm_band(mix, start, end), a=target, records=scale.name),
            ]
        operations[head.scores], operations[head.softmax], operations[head.mix] = [], [], cut
    if all(len(ops) == 1 for ops in operations):
        return graph
    return replace(graph, tensors=tensors, operations=tuple(op for ops in operations for op in ops))


def _heads(graph: QuantizedGraph) -> Iterator[_Head]:
    readers, writers = users(graph, reads), users(graph, writes)
    for index, op in enumerate(graph.operations):
        if not isinstance(op, QSoftmax) or len(writers[op.source.tensor]) != 1:
            continue
        reading = {*readers[op.target.tensor], *readers[op.records]}
        if len(reading) != 1 or readers[op.source.tensor] != [index]:
            continue
        (scores,), (mix,) = writers[op.source.tensor], reading
        made, used = graph.operations[scores], graph.operations[mix]
        if not isinstance(made, QGemm) or not isinstance(used, QGemm):
            continue
        if (
            op.source == made.out == whole(graph.tensors[made.out.tensor])
            and op.target == used.a == whole(graph.tensors[used.a.tensor])
            and op.records == used.records
            and not made.by_row
        ):
            yield _Head(scores, index, mix)
