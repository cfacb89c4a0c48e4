"""What every operation takes of local memory, and what it costs that rows lie in DRAM."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateformer.compiler.gemm_geometry import group_rows
from gateformer.compiler.graph import Role, View
from gateformer.compiler.in_place import heirs
from gateformer.compiler.layout import Layout
from gateformer.compiler.plan import lifetimes
from gateformer.compiler.quantized import QGemm, QNorm, QOperation, QTensor, QuantizedGraph
from gateformer.compiler.residency import Residency
from gateformer.compiler.traffic import Metric, good_room, least_room, moving_cost
from gateformer.compiler.views import reads, views_read, views_written, writes
from gateformer.spec.config import AcceleratorConfig

MOST_MODEST = 3
"""See `MemoryUse.modesty`."""

Key = tuple[int, tuple[int, ...]]


@dataclass
class MemoryUse:
    """Resident rows that change, and what follows from them for every operation."""

    graph: QuantizedGraph
    config: AcceleratorConfig
    metric: Metric
    share: int
    streams: frozenset[str] = frozenset()
    """Tensors of which no row lies in local memory."""
    rows: dict[str, int] = field(default_factory=dict)
    """Resident rows of every tensor that has a place in local memory."""

    def __post_init__(self) -> None:
        graph = self.graph
        self.spans = lifetimes(graph, self.config)
        self.layouts = {
            name: Layout.of(graph.tensors[name], self.config.word_bytes) for name in self.spans
        }
        self.rows = {name: graph.tensors[name].rows for name in self.spans}
        if self.config.dram == "readwrite":
            used = {name for op in graph.operations for name in reads(op)}
            for name in self.spans:
                # An output that nothing reads only passes through.
                if graph.tensors[name].role is Role.OUTPUT and name not in used:
                    self.rows[name] = 0
            self.rows |= dict.fromkeys(self.streams, 0)
        self.names = [sorted({*reads(op), *writes(op)} & set(self.rows)) for op in graph.operations]
        self.users: dict[str, list[int]] = {name: [] for name in self.spans}
        for index, names in enumerate(self.names):
            for name in names:
                self.users[name].append(index)
        self.right_operands: dict[str, list[View]] = {}
        for op in graph.operations:
            if isinstance(op, QGemm):
                self.right_operands.setdefault(op.b.tensor, []).append(op.b)
        self.alive: list[list[str]] = [[] for _ in graph.operations]
        for name, span in self.spans.items():
            for index in span:
                self.alive[index].append(name)
        self.load = [
            sum(self.layouts[name].words_of_rows(self.rows[name]) for name in names)
            for names in self.alive
        ]
        self.heirs = heirs(graph)
        self.heir_of = {heir.source: name for name, heir in self.heirs.items()}
        for name in self.heirs:
            self._share(name, -1)
        self.lost = [0] * len(graph.operations)
        """Words of local memory that lie between places and serve nobody."""
        self.relieved: set[int] = set()
        """Operations for which such words were counted anew."""
        self.modesty = [0] * len(graph.operations)
        """What staging an operation gets at least. 0: a share of local memory, and all its rows of
        A from DRAM at once; 1: the share; 2: groups that keep the array busy; 3: any groups."""
        kinds: dict[object, int] = {}
        self._kinds = [
            kinds.setdefault(_signature(op, graph), len(kinds)) for op in graph.operations
        ]
        """Equal for operations that are alike."""
        self._needs: dict[tuple[Key, int], int] = {}
        self._moving: dict[tuple[Key, int], int] = {}

    def residency(self) -> Residency:
        return Residency(self.graph, self.config, dict(self.rows))

    def _key(self, index: int) -> Key:
        """What the sizes of an operation depend on."""
        return self._kinds[index], tuple([self.rows[name] for name in self.names[index]])

    def need(self, index: int) -> int:
        """Words of staging that an operation needs."""
        modesty = self.modesty[index]
        key = self._key(index), modesty
        if key not in self._needs:
            op, residency = self.graph.operations[index], self._view()
            if modesty:
                words = least_room(op, residency, tiny=modesty == MOST_MODEST)
            else:
                words = good_room(op, residency)
            if modesty < 2 and self.config.dram == "readwrite":
                words = max(words, self.config.local_words // self.share)
            self._needs[key] = words
        return self._needs[key]

    def _view(self) -> Residency:
        return Residency(self.graph, self.config, self.rows)

    def moving(self, index: int) -> int:
        """What moving costs for an operation, with the staging that is left."""
        room = max(self.config.local_words - self.taken(index), self.need(index))
        key = self._key(index), room
        if key not in self._moving:
            self._moving[key] = moving_cost(
                self.graph.operations[index], self._view(), room, self.metric
            )
        return self._moving[key]

    def excess(self, index: int) -> int:
        """Words by which an operation exceeds local memory."""
        return self.taken(index) + self.need(index) - self.config.local_words

    def taken(self, index: int) -> int:
        """Words of local memory that tensors take, or that lie between them and serve nobody."""
        return self.load[index] + self.lost[index]

    def change(self, name: str, rows: int) -> None:
        layout = self.layouts[name]
        difference = layout.words_of_rows(rows) - layout.words_of_rows(self.rows[name])
        family = {name, self.heir_of.get(name, name)} & self.heirs.keys()
        for heir in family:
            self._share(heir, 1)
        for index in self.spans[name]:
            self.load[index] += difference
        self.rows[name] = rows
        for heir in family:
            self._share(heir, -1)

    def _share(self, name: str, sign: int) -> None:
        """Counts the words that an heir has in common with its source, or no longer counts them."""
        heir = self.heirs[name]
        if name in self.rows and heir.source in self.rows:
            rows = min(self.rows[name], self.rows[heir.source])
            for operation in heir.operations:
                self.load[operation] += sign * self.layouts[name].words_of_rows(rows)

    def cost(self, changes: Mapping[str, int], affected: Iterable[int]) -> int:
        """What it adds to the cost of moving, for these operations, that so many rows of tensors
        are resident."""
        affected = list(affected)
        kept = {name: self.rows[name] for name in changes}
        before = sum(self.moving(i) for i in affected)
        for name, rows in changes.items():
            self.change(name, rows)
        after = sum(self.moving(i) for i in affected)
        for name, rows in kept.items():
            self.change(name, rows)
        return after - before - sum(self._brought(name, rows) for name, rows in changes.items())

    def _brought(self, name: str, rows: int) -> int:
        """Bytes that a resident input or output moves once, and no longer if only so many rows are
        resident."""
        if self.graph.tensors[name].role not in (Role.INPUT, Role.OUTPUT):
            return 0
        layout = self.layouts[name]
        words = layout.words_of_rows(self.rows[name]) - layout.words_of_rows(rows)
        return words * self.config.word_bytes

    def steps(self, name: str) -> list[int]:
        """Fewer resident rows: one group less, and none."""
        return sorted({self.less(self.graph.tensors[name], self.rows[name]), 0}, reverse=True)

    def less(self, tensor: QTensor, rows: int) -> int:
        """Where the last group of the resident rows begins; groups start with their sample. Scale
        records are never parted: products take them in groups of their own."""
        if tensor.kind == "record":
            return 0
        group = group_rows(self.config)
        first = 0
        if tensor.row_token is not None:
            sample = tensor.rows // tensor.samples
            first = (rows - 1) // sample * sample
        rows = first + (rows - 1 - first) // group * group
        while not self.splits(tensor, rows):
            rows -= 1
        return rows

    def splits(self, tensor: QTensor, rows: int) -> bool:
        """Whether every tile of B lies either in local memory or in DRAM, with so many rows
        resident."""
        return all(
            not view.row < rows < view.row + view.rows or (rows - view.row) % self.config.cols == 0
            for view in self.right_operands.get(tensor.name, [])
        )

    def more(self, name: str) -> int:
        """The resident rows with one group more."""
        tensor, rows = self.graph.tensors[name], self.rows[name]
        end = tensor.rows
        while self.less(tensor, end) > rows:
            end = self.less(tensor, end)
        return end


def _signature(op: QOperation, graph: QuantizedGraph) -> object:
    """Equal for operations whose needs are equal when equally many rows are resident."""
    names = sorted({*reads(op), *writes(op)})
    views = [*views_read(op), *views_written(op)]
    extra: tuple[object, ...] = ()
    match op:
        case QGemm():
            table = 0 if op.activation is None else op.activation.nbytes
            extra = (op.by_row, op.residual is None, isinstance(op.records, str), table)
        case QNorm():
            extra = (op.int8 is None, op.int16 is None)
    shapes = tuple(
        (names.index(v.tensor), v.row, v.rows, v.col % graph.tensors[v.tensor].segment, v.cols)
        for v in views
    )
    tensors = tuple(
        (t.rows, t.cols, t.segment, t.kind, t.role is Role.CONSTANT, t.row_token, t.samples)
        for t in (graph.tensors[name] for name in names)
    )
    return type(op), shapes, tensors, extra
