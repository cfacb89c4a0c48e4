"""Memory planning: where every tensor of the integer graph lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gateformer.compiler.graph import Role, View
from gateformer.compiler.in_place import Heir
from gateformer.compiler.layout import Layout
from gateformer.compiler.quantized import (
    QCopy,
    QGemm,
    QTensor,
    QuantizedGraph,
)
from gateformer.compiler.residency import Residency
from gateformer.compiler.views import reads, views_read, views_written, writes
from gateformer.compiler.words import Words
from gateformer.spec.config import AcceleratorConfig


@dataclass(frozen=True)
class Place:
    """A tensor in local memory: first word, layout, and how many of its first rows are there."""

    address: int
    layout: Layout
    rows: int

    def word(self, view: View) -> int:
        """Address of the first word of a view."""
        return self.address + self.layout.word_of(view.row, view.col)


@dataclass(frozen=True)
class Plan:
    """local: tensors with rows in local memory. dram: byte addresses of inputs, outputs and of the
    tensors with rows in DRAM, all in the DRAM window. constants_base: first byte behind them, in
    DRAM or, without DRAM, in local memory. floors: for each operation, the first word behind its
    tensors; from there on lies the staging through which constants and rows in DRAM pass. staging:
    what all operations have of it. free: for each operation, all words that no tensor needs then,
    also those between tensors."""

    residency: Residency
    local: dict[str, Place]
    dram: dict[str, int]
    constants_base: int
    floors: list[int]
    staging: range
    free: list[Words]


def loaded_tensors(graph: QuantizedGraph) -> dict[str, np.ndarray]:
    """Without external memory: tensors that lie among the program's constants, since nothing can
    copy within local memory, with their contents before the start."""
    contents = {
        op.residual.tensor: codes_of(graph.tensors[op.residual.tensor])
        for op in graph.operations
        if isinstance(op, QGemm)
        and op.residual is not None
        and graph.tensors[op.residual.tensor].role is Role.CONSTANT
    }
    for op in graph.operations:
        if isinstance(op, QCopy):
            tensor = graph.tensors[op.target.tensor]
            empty = np.zeros((tensor.rows, tensor.cols), np.int64)
            target = contents.setdefault(tensor.name, empty)
            to, source = op.target, op.source
            part = codes_of(graph.tensors[source.tensor])
            part = part[source.row : source.row + source.rows]
            target[to.row : to.row + to.rows] = part
    return contents


def codes_of(tensor: QTensor) -> np.ndarray:
    """The codes of a constant."""
    if tensor.codes is None:
        raise ValueError(f"tensor {tensor.name!r} is no constant")
    return tensor.codes


def lifetimes(graph: QuantizedGraph, config: AcceleratorConfig) -> dict[str, range]:
    """For every tensor that is no constant, the operations during which its place is taken."""
    last = len(graph.operations)
    spans: dict[str, range] = {}
    for index, op in enumerate(graph.operations):
        for name in [*reads(op), *writes(op)]:
            if graph.tensors[name].role is Role.CONSTANT:
                continue
            first = spans[name].start if name in spans else index
            spans[name] = range(first, index + 1)
    for tensor in graph.tensors.values():
        if tensor.name not in spans:
            continue
        if tensor.role is Role.OUTPUT:
            spans[tensor.name] = range(spans[tensor.name].start, last)
        if config.dram != "readwrite" and tensor.role in (Role.INPUT, Role.OUTPUT):
            # The host writes inputs before the start and reads outputs after the end.
            spans[tensor.name] = range(0, last)
    if config.dram == "none":
        for name in loaded_tensors(graph):
            spans.pop(name, None)
    return spans


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def first_fit(
    spans: dict[str, range], sizes: dict[str, int], heirs: Mapping[str, Heir] | None = None
) -> dict[str, int]:
    """Addresses for tensors with the given lifetimes and sizes: first for those that are handed
    down during most of the program, so that the rest is not parted; of others largest first. An
    heir gets the place of its source where nothing else is in the way."""
    addresses: dict[str, int] = {}
    related: dict[str, set[str]] = {name: set() for name in sizes}
    for name, heir in (heirs or {}).items():
        if name in sizes and heir.source in sizes:
            related[name].add(heir.source)
            related[heir.source].add(name)
    end = max((span.stop for span in spans.values()), default=0)

    def rank(name: str) -> tuple[bool, int, int, str]:
        brief = 2 * len(_family_span(name, related, spans)) < end
        return brief, -sizes[name], spans[name].start, name

    for name in sorted(sizes, key=rank):
        taken = sorted(
            (addresses[other], addresses[other] + sizes[other], other)
            for other in addresses
            if _overlap(spans[name], spans[other])
        )

        def free(address: int, name: str = name, taken: list[tuple[int, int, str]] = taken) -> bool:
            return all(
                address + sizes[name] <= low
                or high <= address
                or (other in related[name] and low == address)
                for low, high, other in taken
            )

        family = [addresses[other] for other in sorted(related[name]) if other in addresses]
        starts = [*family, 0, *(high for _, high, _ in taken)]
        if family and free(family[0]):
            addresses[name] = family[0]
        else:
            addresses[name] = min(address for address in starts if free(address))
    return addresses


def _family_span(name: str, related: dict[str, set[str]], spans: dict[str, range]) -> range:
    """The operations during which a tensor or one that has its place lives."""
    family, new = {name}, [name]
    while new:
        found = related[new.pop()] - family
        family |= found
        new += found
    return range(
        min(spans[other].start for other in family), max(spans[other].stop for other in family)
    )


def high_words(
    operations: int, spans: dict[str, range], sizes: dict[str, int], addresses: dict[str, int]
) -> np.ndarray:
    """For each operation, the end of the tensors that live during it."""
    high = np.zeros(operations, np.int64)
    for name, address in addresses.items():
        part = high[spans[name].start : spans[name].stop]
        np.maximum(part, address + sizes[name], out=part)
    return high


def place_tensors(
    graph: QuantizedGraph,
    residency: Residency,
    spans: dict[str, range],
    heirs: Mapping[str, Heir],
) -> tuple[dict[str, Place], np.ndarray]:
    """Places the resident rows of every tensor; also, for each operation, the first word of
    staging."""
    word = residency.config.word_bytes
    layouts = {name: Layout.of(graph.tensors[name], word) for name in spans}
    rows = {name: residency.resident(name) for name in spans}
    sizes = {name: layouts[name].words_of_rows(rows[name]) for name in spans if rows[name]}
    addresses = first_fit(spans, sizes, heirs)
    high = high_words(len(graph.operations), spans, sizes, addresses)
    local = {name: Place(addresses[name], layouts[name], rows[name]) for name in addresses}
    return local, high


def free_words(
    graph: QuantizedGraph, local: Mapping[str, Place], spans: dict[str, range], top: int
) -> list[Words]:
    """For each operation, the words below `top` that no tensor needs while it runs. A value's row
    needs its words from the first operation that writes it to the last that reads it."""
    first: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    for name in local.keys() & spans.keys():
        tensor = graph.tensors[name]
        whole = tensor.role is not Role.VALUE or tensor.kind == "record"
        first[name] = np.full(tensor.rows, spans[name].start if whole else spans[name].stop)
        last[name] = np.full(tensor.rows, spans[name].stop - 1 if whole else -1)
    for index, op in enumerate(graph.operations):
        for view in [*views_read(op), *views_written(op)]:
            if view.tensor in first:
                rows = np.s_[view.row : view.row + view.rows]
                first[view.tensor][rows] = np.minimum(first[view.tensor][rows], index)
                last[view.tensor][rows] = np.maximum(last[view.tensor][rows], index)
    taken: list[list[tuple[int, int]]] = [[] for _ in graph.operations]
    for name, starts in first.items():
        place, ends = local[name], last[name]
        changes = np.flatnonzero((np.diff(starts) != 0) | (np.diff(ends) != 0)) + 1
        for row, end in pairwise([0, *changes.tolist(), len(starts)]):
            low, high = (
                place.address + place.layout.words_of_rows(min(edge, place.rows))
                for edge in (row, end)
            )
            for index in range(starts[row], ends[row] + 1):
                taken[index].append((low, high))
    return [Words.outside(blocks, top) for blocks in taken]


def place_in_dram(
    graph: QuantizedGraph, residency: Residency, spans: dict[str, range]
) -> tuple[dict[str, int], int]:
    """Byte addresses in the DRAM window of inputs, outputs and tensors with rows in DRAM, and the
    end. Values that do not live at once share addresses: the one DMA engine works in order."""
    config = residency.config
    if config.dram != "readwrite":
        return {}, 0
    homes: dict[str, int] = {}
    sizes: dict[str, int] = {}
    offset = 0
    for tensor in graph.tensors.values():
        size = Layout.of(tensor, config.word_bytes).words * config.word_bytes
        size = -(-size // config.burst_bytes) * config.burst_bytes
        if tensor.role in (Role.INPUT, Role.OUTPUT):
            homes[tensor.name] = offset
            offset += size
        elif tensor.name in spans and residency.resident(tensor.name) < tensor.rows:
            sizes[tensor.name] = size
    values = first_fit(spans, sizes)
    end = max((values[name] + sizes[name] for name in values), default=0)
    return homes | {name: offset + address for name, address in values.items()}, offset + end
