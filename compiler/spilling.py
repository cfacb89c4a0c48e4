"""Decides which rows of which tensors lie in DRAM where local memory is too small for all.

Greedy: as long as the tensors that live during some operation and the staging that it needs exceed
local memory, the group of rows moves out that costs the least traffic (bytes to and from DRAM, as
they weigh) for each word by which it helps the operations that do not fit. Staging first has to
hold all rows of A that come from DRAM, since B comes once for each chunk of them; an operation for
which that is too much runs in chunks. Then groups go on moving out as long as that lowers the
traffic: more staging can save a chunk; and back in where there is room left.
"""

from operator import itemgetter

from gateformer.compiler.in_place import overwritten
from gateformer.compiler.memory_use import MOST_MODEST, MemoryUse
from gateformer.compiler.plan import Plan, free_words, place_in_dram, place_tensors
from gateformer.compiler.quantized import QCopy, QuantizedGraph
from gateformer.compiler.traffic import Metric
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError


def _fit(use: MemoryUse) -> None:
    """Moves groups out until every operation fits. Raises CapacityError when one cannot."""
    while True:
        excess = {i: e for i in range(len(use.load)) if (e := use.excess(i)) > 0}
        if not excess:
            return
        index = max(excess, key=excess.__getitem__)
        moves = [
            move
            for name in use.alive[index]
            for rows in (use.steps(name) if use.rows[name] else [])
            if (move := _rate(use, name, rows, index, excess)) is not None
        ]
        if moves and use.config.dram == "readwrite":
            _, name, rows = min(moves)
            use.change(name, rows)
        elif use.modesty[index] < MOST_MODEST:
            use.modesty[index] += 1
        elif use.lost[index] and index not in use.relieved:
            # They lay between tensors that have moved out since, perhaps.
            use.relieved.add(index)
            use.lost[index] = 0
        else:
            _refuse(use, index)


def _rate(
    use: MemoryUse, name: str, rows: int, index: int, excess: dict[int, int]
) -> tuple[float, str, int] | None:
    """Traffic for each word of excess that a change takes away; None where it does not help
    the operation `index`."""
    cost, kept = use.cost({name: rows}, use.users[name]), use.rows[name]
    use.change(name, rows)
    helped = {i: min(excess[i] - use.excess(i), excess[i]) for i in use.spans[name] if i in excess}
    use.change(name, kept)
    if helped[index] <= 0:
        return None
    return cost / sum(words for words in helped.values() if words > 0), name, rows


def _improve(use: MemoryUse) -> None:
    """Moves groups out as long as that lowers the traffic."""
    for index in range(len(use.load)):
        while True:
            best: tuple[int, str, int] | None = None
            for name in use.alive[index]:
                if not use.rows[name] or index in use.users[name]:
                    continue
                for rows in use.steps(name):
                    affected = sorted({*use.users[name], index})
                    cost = use.cost({name: rows}, affected)
                    if cost < 0 and (best is None or (cost, name, rows) < best):
                        best = cost, name, rows
            if best is None:
                break
            use.change(best[1], best[2])


def _part_streams(use: MemoryUse) -> None:
    """Moves groups out of two tensors of which one takes the other's place, as long as that makes
    moving cheaper: to move one out alone frees nothing."""
    for op in use.graph.operations:
        pair = None if isinstance(op, QCopy) else overwritten(op)
        if pair is None:
            continue
        source, target = (view.tensor for view in pair)
        heir = use.heirs.get(target)
        if heir is None or heir.source != source:
            continue
        names = (source, target)
        affected = sorted({*use.spans[source], *use.spans[target]})
        rows = max(use.rows[name] for name in names)
        best: tuple[int, dict[str, int]] = (0, {})
        while rows:
            rows = use.less(use.graph.tensors[source], rows)
            if not use.splits(use.graph.tensors[target], rows):
                continue
            changes = {name: min(rows, use.rows[name]) for name in names}
            best = min(best, (use.cost(changes, affected), changes), key=itemgetter(0))
        for name, kept in best[1].items():
            use.change(name, kept)


def _refill(use: MemoryUse) -> None:
    """Moves groups back in where there is room left, as long as that lowers the traffic."""
    moved = True
    while moved:
        moved = False
        for name in use.spans:
            if name in use.streams:
                continue
            total = use.graph.tensors[name].rows
            for rows in (total, use.more(name)):
                if rows > use.rows[name] and _gains(use, name, rows):
                    use.change(name, rows)
                    moved = True


def _gains(use: MemoryUse, name: str, rows: int) -> bool:
    """Whether more resident rows fit and lower the traffic."""
    kept = use.rows[name]
    use.change(name, rows)
    fits = all(use.excess(index) <= 0 for index in use.spans[name])
    use.change(name, kept)
    return fits and use.cost({name: rows}, list(use.spans[name])) < 0


def _refuse(use: MemoryUse, index: int) -> None:
    config, word = use.config, use.config.word_bytes
    need = -(-(use.taken(index) + use.need(index)) * word // 1024)
    tensors = use.load[index] * word // 1024
    largest = max(
        use.alive[index],
        key=lambda n: use.layouts[n].words_of_rows(use.rows[n]),
        default="-",
    )
    raise CapacityError(
        f"{use.graph.operations[index].name!r} needs {need} KiB of local memory ({tensors} of "
        f"them for activations, the largest {largest!r}), config {config.name!r} has "
        f"{config.local_kib}: raise local_kib"
    )


def plan_memory(
    graph: QuantizedGraph,
    config: AcceleratorConfig,
    metric: Metric = "bytes",
    share: int = 8,
    streams: frozenset[str] = frozenset(),
) -> Plan:
    """Decides what lies in local memory, and where; the rest of local memory is staging. metric:
    how bytes weigh that move, see `traffic.Metric`. share: as which part of local memory staging
    leaves room for loads to run ahead, where tensors can move out for it. streams: tensors of which
    no row lies in local memory.

    Raises CapacityError when an operation does not fit even with all its tensors in DRAM, or when
    there is no DRAM to write.
    """
    use = MemoryUse(graph, config, metric, share, streams)
    while True:
        _fit(use)
        if config.dram == "readwrite":
            _improve(use)
            _refill(use)
            _part_streams(use)
            _refill(use)
        residency = use.residency()
        local, high = place_tensors(graph, residency, use.spans, use.heirs)
        short = False
        for index, words in enumerate(high):
            lost = int(words) - use.load[index]
            if lost > use.lost[index] and words + use.need(index) > config.local_words:
                use.lost[index] = lost
                short = True
        if not short:
            break
    floors = [int(words) for words in high]
    floor = max(floors, default=0)
    dram, window = place_in_dram(graph, residency, use.spans)
    base = -(-window // config.burst_bytes) * config.burst_bytes
    top = config.local_words
    if config.dram == "none":
        # Constants and program lie behind what passes through staging: partial sums.
        top = floor + max((use.need(i) for i in range(len(floors))), default=0)
        base = top * config.word_bytes
    free = free_words(graph, local, use.spans, top)
    return Plan(residency, local, dram, base, floors, range(floor, top), free)
