"""The order of operations: each as late as its readers allow, and so that the array need not wait.

A list scheduler at the grain of operations. Of the products whose operands are made, the array
takes the one for which it waits least, and of equals the first in the graph's order. A product that
makes operands of attention from weights is *lazy*: it comes when nothing else can start, so that
few pieces of queries, keys and values are alive at a time; and it fills the time in which all else
waits for a softmax, a norm or the epilogue.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from gateformer.compiler.graph import View
from gateformer.compiler.layout import words_of
from gateformer.compiler.quantized import QCopy, QGemm, QNorm, QOperation, QSoftmax, QuantizedGraph
from gateformer.compiler.timing import (
    epilogue_tile_cycles,
    norm_row_cycles,
    softmax_row_cycles,
    tile_cycles,
)
from gateformer.compiler.views import views_read, views_written
from gateformer.spec.config import AcceleratorConfig

PATIENCE = 256
"""Cycles that the array rather waits than begin a lazy product."""
GRAIN = 32
"""Rows after which a reader can start on a result."""
LATENCY = 100
"""Cycles from the last input of a group of rows to its results, at any engine."""


@dataclass(frozen=True)
class _Times:
    """When the first and the last rows of a result are made."""

    first: int
    last: int


def order_operations(graph: QuantizedGraph, config: AcceleratorConfig) -> QuantizedGraph:
    """The same operations, those that read a result still behind those that make it."""
    orderer = _Orderer(graph, config)
    return replace(graph, operations=tuple(orderer.run()))


class _Orderer:
    def __init__(self, graph: QuantizedGraph, config: AcceleratorConfig) -> None:
        self.graph = graph
        self.config = config
        self.operations = graph.operations
        self.sources = _sources(self.operations)
        self.readers: list[list[int]] = [[] for _ in self.operations]
        for index, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source].append(index)
        self.made: dict[int, _Times] = {}
        self.array = 0
        self.epilogue = 0
        self.vector = 0

    def run(self) -> list[QOperation]:
        """Operations in their new order."""
        waiting = list(range(len(self.operations)))
        order = []
        while waiting:
            index = self._choose([i for i in waiting if self.sources[i] <= self.made.keys()])
            waiting.remove(index)
            order.append(self.operations[index])
            self._run(index)
        return order

    def _choose(self, ready: list[int]) -> int:
        for index in ready:
            if not isinstance(self.operations[index], QGemm):
                return index
        return min(ready, key=self._rank)

    def _rank(self, index: int) -> tuple[int, tuple[int, int], int]:
        """What comes first has the least: waits below PATIENCE count as none."""
        lazy = index in self._lazy
        wait = self._wait(index)
        if lazy:
            return max(wait, PATIENCE), self._first_reader[index], index
        return (wait if wait > PATIENCE else 0), (index, 0), index

    @cached_property
    def _lazy(self) -> set[int]:
        """Products with weights whose results only products without weights read."""
        lazy = set()
        for index, op in enumerate(self.operations):
            readers = [self.operations[i] for i in self.readers[index]]
            if (
                self._weighted(op)
                and readers
                and all(isinstance(r, QGemm) and not self._weighted(r) for r in readers)
            ):
                lazy.add(index)
        return lazy

    @cached_property
    def _first_reader(self) -> list[tuple[int, int]]:
        """For each operation the first one that reads its result, and whether only as A: all of B
        must be in the ring before."""
        first = []
        for index, readers in enumerate(self.readers):
            reader = min(readers, default=index)
            op = self.operations[reader]
            right = isinstance(op, QGemm) and self._writes(index, op.b)
            first.append((reader, int(not right)))
        return first

    def _writes(self, index: int, view: View) -> bool:
        return any(view.tensor == v.tensor for v in views_written(self.operations[index]))

    def _weighted(self, op: QOperation) -> bool:
        return isinstance(op, QGemm) and any(map(self.graph.is_constant, (op.a, op.b)))

    # ------------------------------------------------------------------------------- engines

    def _gemm(self, index: int) -> tuple[int, int, int]:
        """When a product can start, and the cycles that array and epilogue take for it."""
        op, config = self.operations[index], self.config
        assert isinstance(op, QGemm)
        tiles = -(-op.a.rows // config.rows) * -(-op.b.rows // config.cols)
        array = tiles * tile_cycles(config, op.a.cols)
        epilogue = tiles * self._drain(op)
        groups = -(-op.a.rows // GRAIN)
        start = self.array
        for source in self.sources[index]:
            times = self.made[source]
            if self._writes(source, op.b):
                load = op.b.rows * words_of(op.b.cols, 1, config.word_bytes)
                start = max(start, times.last + load)
            else:
                start = max(start, times.first, times.last - array * (groups - 1) // groups)
        return start, array, epilogue

    def _drain(self, op: QGemm) -> int:
        """Cycles that the epilogue takes for a tile."""
        return epilogue_tile_cycles(
            self.config, columns=op.b.rows, residual=op.residual is not None
        )

    def _wait(self, index: int) -> int:
        """Cycles that the array waits when this product is next and need not wait later: for its
        operands, and for the epilogue to take what came before."""
        start, array, epilogue = self._gemm(index)
        own = self._full(epilogue - array, index)
        behind = max(self.epilogue - start, 0) + epilogue - array
        return start - self.array + self._full(behind, index) - own

    def _full(self, behind: int, index: int) -> int:
        """Cycles that the array waits until the epilogue is behind by no more than the buffer."""
        op = self.operations[index]
        assert isinstance(op, QGemm)
        return max(behind - self.config.accumulator_tiles * self._drain(op), 0)

    def _run(self, index: int) -> None:
        op, config = self.operations[index], self.config
        match op:
            case QGemm():
                start, array, epilogue = self._gemm(index)
                waits = self._full(max(self.epilogue - start, 0) + epilogue - array, index)
                groups = -(-op.a.rows // GRAIN)
                end = start + array + waits
                self.array = end
                self.epilogue = max(self.epilogue, start) + epilogue
                last = max(end, self.epilogue) + LATENCY
                first = last - max(array, epilogue) * (groups - 1) // groups
            case QSoftmax():
                cycles = softmax_row_cycles(config, op.source.cols)
                first, last = self._vector(index, op.source.rows, cycles)
            case QNorm():
                cycles = norm_row_cycles(config, op.source.cols)
                first, last = self._vector(index, op.source.rows, cycles)
            case QCopy():
                first = last = 0
        self.made[index] = _Times(first, last)

    def _vector(self, index: int, rows: int, row_cycles: int) -> tuple[int, int]:
        sources = [self.made[source] for source in self.sources[index]]
        group = min(rows, GRAIN) * row_cycles
        start = max([self.vector, *(times.first for times in sources)])
        end = max([start + rows * row_cycles, *(times.last + group for times in sources)])
        self.vector = end
        return start + group + LATENCY, end + LATENCY


def _sources(operations: tuple[QOperation, ...]) -> list[set[int]]:
    """For each operation, those that make what it reads."""
    writers: dict[str, list[tuple[View, int]]] = {}
    sources: list[set[int]] = []
    for index, op in enumerate(operations):
        found = {
            writer
            for view in views_read(op)
            for other, writer in writers.get(view.tensor, ())
            if _meet(view, other)
        }
        if isinstance(op, QGemm) and isinstance(op.records, str):
            found |= {writer for _, writer in writers[op.records]}
        sources.append(found)
        for view in views_written(op):
            writers.setdefault(view.tensor, []).append((view, index))
        if isinstance(op, QSoftmax):
            writers.setdefault(op.records, []).append((op.target, index))
    return sources


def _meet(a: View, b: View) -> bool:
    return (
        a.row < b.row + b.rows
        and b.row < a.row + a.rows
        and a.col < b.col + b.cols
        and b.col < a.col + a.cols
    )
