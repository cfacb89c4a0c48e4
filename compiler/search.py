"""The choice among the strategies to order, place and schedule a graph, by the cycle model."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from gateformer.compiler.attention_bands import cut_attention
from gateformer.compiler.bands import cut_bands
from gateformer.compiler.batching import batch
from gateformer.compiler.late_norms import put_off_norms
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.compiler.schedule import Schedule, schedule
from gateformer.compiler.spilling import plan_memory
from gateformer.compiler.traffic import Metric
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError

Cut = Callable[[QuantizedGraph, AcceleratorConfig], QuantizedGraph]

METRICS: tuple[Metric, ...] = ("bytes", "urgency", "time")
STAGING_SHARES = (8, 12)
"""What may move to DRAM is decided by several metrics, with the first share of staging, and by the
best one with others. See `plan_memory`."""
EAGER = 2
"""Of so many programs, the fastest, the loads are also made to run ahead eagerly."""
SAMPLE = 150
"""Of a large graph only the first operations are tried with all strategies, so many for each sample
of its batch: layers are alike."""
LARGEST_SAMPLE = 600
"""Never more than so many: what a try costs grows with them, whatever the batch is."""


@dataclass(frozen=True)
class Strategy:
    """How a program is made. cuts: what is cut into bands; metric, share: of `plan_memory`; late:
    whether norms whose results pass through DRAM are put off; eager: how loads run ahead; turns: so
    many samples run in turn, of a graph of one."""

    cuts: tuple[Cut, ...] = ()
    metric: Metric = METRICS[0]
    share: int = STAGING_SHARES[0]
    late: bool = False
    eager: bool = False
    turns: int = 1


@dataclass(frozen=True)
class Candidate:
    """An order of operations, where their tensors lie, and the program of that."""

    strategy: Strategy
    graph: QuantizedGraph
    plan: Plan
    schedule: Schedule

    @property
    def cycles(self) -> int:
        return self.schedule.cycles


def fastest(
    graph: QuantizedGraph, config: AcceleratorConfig, single: QuantizedGraph | None = None
) -> Candidate:
    """Of all strategies' programs the one that takes the fewest cycles; of a large graph, that of
    the strategy that takes the fewest for its first operations. single: the graph of one sample of
    which `graph` is a batch, if its samples may run in turn as well: that takes less where weights
    that come once for all save less than the values of all take. Raises CapacityError where nothing
    fits."""
    if single is None or graph.samples == 1:
        return _fastest(graph, config)
    found: list[Candidate] = []
    failures: list[CapacityError] = []
    try:
        found.append(_fastest(graph, config))
    except CapacityError as error:
        failures.append(error)
    try:
        alone = _fastest(single, config)
        if not found or graph.samples * alone.cycles < found[0].cycles:
            found += _in_turn(alone.strategy, single, config, graph.samples)
    except CapacityError as error:
        failures.append(error)
    if not found:
        raise failures[0]
    return min(found, key=_cycles)


def _in_turn(
    strategy: Strategy, graph: QuantizedGraph, config: AcceleratorConfig, samples: int
) -> Iterator[Candidate]:
    """What is decided for one sample alone need not be decided so for each of several."""
    strategy = replace(strategy, turns=samples)
    ordered = _ordered(strategy, graph, config)
    for metric in METRICS:
        with suppress(CapacityError):
            yield _made(replace(strategy, metric=metric), ordered, config)


def _fastest(graph: QuantizedGraph, config: AcceleratorConfig) -> Candidate:
    count = min(SAMPLE * graph.samples, LARGEST_SAMPLE)
    if len(graph.operations) <= count * 4 // 3:
        return _Search(graph, config).run()[0]
    sample = replace(graph, operations=graph.operations[:count])
    for found in _Search(sample, config).run():
        with suppress(CapacityError):
            return _made(found.strategy, _ordered(found.strategy, graph, config), config)
    return _Search(graph, config).run()[0]


def _ordered(
    strategy: Strategy, graph: QuantizedGraph, config: AcceleratorConfig
) -> QuantizedGraph:
    for cut in strategy.cuts:
        graph = cut(graph, config)
    return batch(order_operations(graph, config), strategy.turns, config, in_turn=True)


def _made(strategy: Strategy, graph: QuantizedGraph, config: AcceleratorConfig) -> Candidate:
    """Of a graph in order."""
    plan = plan_memory(graph, config, strategy.metric, strategy.share)
    if strategy.late:
        graph, plan = _put_off(strategy, graph, plan)
    return _scheduled(strategy, graph, plan)


def _put_off(strategy: Strategy, graph: QuantizedGraph, plan: Plan) -> tuple[QuantizedGraph, Plan]:
    """The same with late norms; the same graph where there are none."""
    late = put_off_norms(graph, plan.residency)
    if not late.streams:
        return graph, plan
    config = plan.residency.config
    return late.graph, plan_memory(
        late.graph, config, strategy.metric, strategy.share, late.streams
    )


def _scheduled(strategy: Strategy, graph: QuantizedGraph, plan: Plan) -> Candidate:
    program = schedule(graph, plan.residency.config, plan, eager=strategy.eager)
    return Candidate(strategy, graph, plan, program)


class _Search:
    """Candidates for one graph."""

    def __init__(self, graph: QuantizedGraph, config: AcceleratorConfig) -> None:
        self.graph = graph
        self.config = config
        self.found: list[Candidate] = []
        self.failures: list[CapacityError] = []
        self._seen: set[object] = set()

    def run(self) -> list[Candidate]:
        """All that fit, the fastest first. Raises CapacityError where there is none."""
        cuts: tuple[Cut, ...] = ()
        graph = self.graph
        self._try_places(cuts, graph)
        for cut in (cut_attention, cut_bands):
            other = cut(graph, self.config)
            if other is graph:
                continue
            before = min(self.found, key=_cycles, default=None)
            self._try_places((*cuts, cut), other)
            if before is None or min(self.found, key=_cycles) is not before:
                graph, cuts = other, (*cuts, cut)
        if not self.found:
            raise self.failures[0]
        best = min(self.found, key=_cycles)
        self._try(partial(self._late, best))
        for one in sorted(self.found, key=_cycles)[:EAGER]:
            eager = replace(one.strategy, eager=True)
            self._try(partial(_scheduled, eager, one.graph, one.plan))
        return sorted(self.found, key=_cycles)

    def _try_places(self, cuts: tuple[Cut, ...], graph: QuantizedGraph) -> None:
        """Tries what may move to DRAM of a graph with these cuts."""
        ordered = order_operations(graph, self.config)
        tried = [self._try_place(Strategy(cuts, metric), ordered) for metric in METRICS]
        best = min((one for one in tried if one is not None), key=_cycles, default=None)
        if best is not None:
            for share in STAGING_SHARES[1:]:
                self._try_place(replace(best.strategy, share=share), ordered)

    def _try_place(self, strategy: Strategy, ordered: QuantizedGraph) -> Candidate | None:
        return self._try(partial(self._place, strategy, ordered))

    def _try(self, make: Callable[[], Candidate | None]) -> Candidate | None:
        """None where it does not fit, or would be a candidate that there is."""
        try:
            made = make()
        except CapacityError as error:
            self.failures.append(error)
            return None
        if made is not None:
            self.found.append(made)
        return made

    def _place(self, strategy: Strategy, graph: QuantizedGraph) -> Candidate | None:
        plan = plan_memory(graph, self.config, strategy.metric, strategy.share)
        place = strategy.cuts, frozenset(plan.residency.rows.items())
        if place in self._seen:
            return None
        self._seen.add(place)
        return _scheduled(strategy, graph, plan)

    def _late(self, one: Candidate) -> Candidate | None:
        strategy = replace(one.strategy, late=True)
        graph, plan = _put_off(strategy, one.graph, one.plan)
        return None if graph is one.graph else _scheduled(strategy, graph, plan)


def _cycles(candidate: Candidate) -> int:
    return candidate.cycles
