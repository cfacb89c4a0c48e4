"""Decides which rows of which tensors lie in DRAM where local memory is too small for all.

Greedy: as long as the tensors that live during some operation and the staging that it needs exceed
local memory, the group of rows moves out that costs the least traffic (bytes to and from DRAM) for
each word by which it helps the operations that do not fit. Staging first has to hold all rows of A
that come from DRAM, since B comes once for each chunk of them; an operation for which that is too
much runs in chunks. Then groups go on moving out as long as that lowers the traffic: more staging
can save a chunk.
"""

from dataclasses import dataclass, field

from gateformer.compiler.gemm_geometry import group_rows
from gateformer.compiler.graph import Role, View
from gateformer.compiler.in_place import heirs
from gateformer.compiler.layout import Layout
from gateformer.compiler.plan import (
    Plan,
    free_words,
    lifetimes,
    place_in_dram,
    place_tensors,
    reads,
    writes,
)
from gateformer.compiler.quantized import (
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
)
from gateformer.compiler.residency import Residency
from gateformer.compiler.traffic import good_room, least_room, moved_bytes
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError

MOST_MODEST = 3

Key = tuple[object, tuple[int, ...]]


@dataclass
class _Spiller:
    graph: QuantizedGraph
    config: AcceleratorConfig
    urgency: int
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
        self._signatures = [_signature(op, graph) for op in graph.operations]
        self._needs: dict[tuple[Key, int], int] = {}
        self._moved: dict[tuple[Key, int], int] = {}

    def residency(self) -> Residency:
        return Residency(self.graph, self.config, dict(self.rows))

    def _key(self, index: int) -> Key:
        """What the sizes of an operation depend on."""
        return self._signatures[index], tuple(self.rows[name] for name in self.names[index])

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

    def moved(self, index: int) -> int:
        """Bytes that an operation moves, with the staging that is left."""
        room = max(self.config.local_words - self._taken(index), self.need(index))
        key = self._key(index), room
        if key not in self._moved:
            self._moved[key] = moved_bytes(
                self.graph.operations[index], self._view(), room, self.urgency
            )
        return self._moved[key]

    def excess(self, index: int) -> int:
        """Words by which an operation exceeds local memory."""
        return self._taken(index) + self.need(index) - self.config.local_words

    def _taken(self, index: int) -> int:
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

    def cost(self, name: str, rows: int, affected: list[int]) -> int:
        """Bytes of traffic that a change adds."""
        before, kept = sum(self.moved(i) for i in affected), self.rows[name]
        self.change(name, rows)
        after = sum(self.moved(i) for i in affected)
        self.change(name, kept)
        tensor, layout = self.graph.tensors[name], self.layouts[name]
        words = layout.words_of_rows(kept) - layout.words_of_rows(rows)
        # A resident input is brought once, a resident output stored once: that is saved.
        brought = tensor.role in (Role.INPUT, Role.OUTPUT)
        return after - before - brought * words * self.config.word_bytes

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

    def fit(self) -> None:
        """Moves groups out until every operation fits. Raises CapacityError when one cannot."""
        while True:
            excess = {i: e for i in range(len(self.load)) if (e := self.excess(i)) > 0}
            if not excess:
                return
            index = max(excess, key=excess.__getitem__)
            moves = [
                move
                for name in self.alive[index]
                for rows in (self.steps(name) if self.rows[name] else [])
                if (move := self._rate(name, rows, index, excess)) is not None
            ]
            if moves and self.config.dram == "readwrite":
                _, name, rows = min(moves)
                self.change(name, rows)
            elif self.modesty[index] < MOST_MODEST:
                self.modesty[index] += 1
            elif self.lost[index] and index not in self.relieved:
                # They lay between tensors that have moved out since, perhaps.
                self.relieved.add(index)
                self.lost[index] = 0
            else:
                self._refuse(index)

    def _rate(
        self, name: str, rows: int, index: int, excess: dict[int, int]
    ) -> tuple[float, str, int] | None:
        """Traffic for each word of excess that a change takes away; None where it does not help
        the operation `index`."""
        cost, kept = self.cost(name, rows, self.users[name]), self.rows[name]
        self.change(name, rows)
        helped = {
            i: min(excess[i] - self.excess(i), excess[i]) for i in self.spans[name] if i in excess
        }
        self.change(name, kept)
        if helped[index] <= 0:
            return None
        return cost / sum(words for words in helped.values() if words > 0), name, rows

    def improve(self) -> None:
        """Moves groups out as long as that lowers the traffic."""
        for index in range(len(self.load)):
            while True:
                best: tuple[int, str, int] | None = None
                for name in self.alive[index]:
                    if not self.rows[name] or index in self.users[name]:
                        continue
                    for rows in self.steps(name):
                        affected = sorted({*self.users[name], index})
                        cost = self.cost(name, rows, affected)
                        if cost < 0 and (best is None or (cost, name, rows) < best):
                            best = cost, name, rows
                if best is None:
                    break
                self.change(best[1], best[2])

    def refill(self) -> None:
        """Moves groups back in where there is room left, as long as that lowers the traffic."""
        moved = True
        while moved:
            moved = False
            for name in self.spans:
                if name in self.streams:
                    continue
                total = self.graph.tensors[name].rows
                for rows in (total, self.more(name)):
                    if rows > self.rows[name] and self._gains(name, rows):
                        self.change(name, rows)
                        moved = True

    def more(self, name: str) -> int:
        """The resident rows with one group more."""
        tensor, rows = self.graph.tensors[name], self.rows[name]
        end = tensor.rows
        while self.less(tensor, end) > rows:
            end = self.less(tensor, end)
        return end

    def _gains(self, name: str, rows: int) -> bool:
        """Whether more resident rows fit and lower the traffic."""
        kept = self.rows[name]
        self.change(name, rows)
        fits = all(self.excess(index) <= 0 for index in self.spans[name])
        self.change(name, kept)
        return fits and self.cost(name, rows, list(self.spans[name])) < 0

    def _refuse(self, index: int) -> None:
        config, word = self.config, self.config.word_bytes
        need = -(-(self._taken(index) + self.need(index)) * word // 1024)
        tensors = self.load[index] * word // 1024
        largest = max(
            self.alive[index],
            key=lambda n: self.layouts[n].words_of_rows(self.rows[n]),
            default="-",
        )
        raise CapacityError(
            f"{self.graph.operations[index].name!r} needs {need} KiB of local memory ({tensors} of "
            f"them for activations, the largest {largest!r}), config {config.name!r} has "
            f"{config.local_kib}: raise local_kib"
        )


def _signature(op: QOperation, graph: QuantizedGraph) -> object:
    """Equal for operations whose needs are equal when equally many rows are resident."""
    views: list[View] = []
    extra: tuple[object, ...] = ()
    names = sorted({*reads(op), *writes(op)})
    match op:
        case QGemm():
            views = [op.a, op.b, op.out, *([] if op.residual is None else [op.residual])]
            table = 0 if op.activation is None else op.activation.nbytes
            extra = (op.by_row, op.residual is None, isinstance(op.records, str), table)
        case QSoftmax() | QCopy():
            views = [op.source, op.target]
        case QNorm():
            gains = [gain for gain in (op.int8, op.int16) if gain is not None]
            views = [op.source, *(gain.target for gain in gains)]
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


def plan_memory(
    graph: QuantizedGraph,
    config: AcceleratorConfig,
    urgency: int = 1,
    share: int = 8,
    streams: frozenset[str] = frozenset(),
) -> Plan:
    """Decides what lies in local memory, and where; the rest of local memory is staging. urgency:
    what a byte counts that the array soon waits for. share: as which part of local memory staging
    leaves room for loads to run ahead, where tensors can move out for it. streams: tensors of which
    no row lies in local memory.

    Raises CapacityError when an operation does not fit even with all its tensors in DRAM, or when
    there is no DRAM to write.
    """
    spiller = _Spiller(graph, config, urgency, share, streams)
    while True:
        spiller.fit()
        if config.dram == "readwrite":
            spiller.improve()
            spiller.refill()
        residency = spiller.residency()
        local, high = place_tensors(graph, residency, spiller.spans, spiller.heirs)
        short = False
        for index, words in enumerate(high):
            lost = int(words) - spiller.load[index]
            if lost > spiller.lost[index] and words + spiller.need(index) > config.local_words:
                spiller.lost[index] = lost
                short = True
        if not short:
            break
    floors = [int(words) for words in high]
    floor = max(floors, default=0)
    dram, window = place_in_dram(graph, residency, spiller.spans)
    base = -(-window // config.burst_bytes) * config.burst_bytes
    top = config.local_words
    if config.dram == "none":
        # Constants and program lie behind what passes through staging: partial sums.
        top = floor + max((spiller.need(i) for i in range(len(floors))), default=0)
        base = top * config.word_bytes
    free = free_words(graph, local, spiller.spans, top)
    return Plan(residency, local, dram, base, floors, range(floor, top), free)
