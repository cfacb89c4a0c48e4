"""The choice among the ways to order, place and schedule a graph, by the cycle model."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from gateformer.compiler.attention_bands import cut_attention
from gateformer.compiler.bands import cut_bands
from gateformer.compiler.late_norms import put_off_norms
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.compiler.schedule import Schedule, schedule
from gateformer.compiler.spilling import plan_memory
from gateformer.compiler.traffic import Weight
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError

Cut = Callable[[QuantizedGraph, AcceleratorConfig], QuantizedGraph]

WEIGHTS: tuple[Weight, ...] = ("bytes", "urgency", "time")
STAGING_SHARES = (8, 12)
"""What may move to DRAM is weighed in several ways, with the first share of staging, and the best
way with others. See `plan_memory`."""
EAGER = 2
"""Of so many programs, the fastest, the loads are also made to run ahead eagerly."""
SAMPLE = 150
"""So many operations of a graph for each sample of its batch, the first, are tried in all ways:
layers are alike."""
LARGEST_SAMPLE = 600


@dataclass(frozen=True)
class Way:
    """How a program is made. cuts: what is cut into bands; weight, share: of `plan_memory`; late:
    whether norms whose results pass through DRAM are put off; eager: how loads run ahead."""

    cuts: tuple[Cut, ...] = ()
    weight: Weight = WEIGHTS[0]
    share: int = STAGING_SHARES[0]
    late: bool = False
    eager: bool = False


@dataclass(frozen=True)
class Candidate:
    """An order of operations, where their tensors lie, and the program of that."""

    way: Way
    graph: QuantizedGraph
    plan: Plan
    schedule: Schedule

    @property
    def cycles(self) -> int:
        return self.schedule.cycles


def fastest(graph: QuantizedGraph, config: AcceleratorConfig) -> Candidate:
    """Of all ways the one whose program takes the fewest cycles; of a large graph, one of those
    that take the fewest for its first operations. Raises CapacityError where it fits in none."""
    count = min(SAMPLE * graph.samples, LARGEST_SAMPLE)
    if len(graph.operations) <= count * 4 // 3:
        return _Search(graph, config).run()[0]
    sample = replace(graph, operations=graph.operations[:count])
    for found in _Search(sample, config).run():
        with suppress(CapacityError):
            return _scheduled(found.way, *_placed(found.way, graph, config))
    return _Search(graph, config).run()[0]


def _placed(
    way: Way, graph: QuantizedGraph, config: AcceleratorConfig
) -> tuple[QuantizedGraph, Plan]:
    for cut in way.cuts:
        graph = cut(graph, config)
    graph = order_operations(graph, config)
    plan = plan_memory(graph, config, way.weight, way.share)
    if way.late:
        late = put_off_norms(graph, plan.residency)
        graph = late.graph
        plan = plan_memory(graph, config, way.weight, way.share, late.streams)
    return graph, plan


def _scheduled(way: Way, graph: QuantizedGraph, plan: Plan) -> Candidate:
    program = schedule(graph, plan.residency.config, plan, eager=way.eager)
    return Candidate(way, graph, plan, program)


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
        self._place(cuts)
        for cut in (cut_attention, cut_bands):
            other = cut(graph, self.config)
            if other is graph:
                continue
            before = min(self.found, key=_cycles, default=None)
            self._place((*cuts, cut))
            if before is None or min(self.found, key=_cycles) is not before:
                graph, cuts = other, (*cuts, cut)
        if not self.found:
            raise self.failures[0]
        for change in (self._late, self._eager):
            for way in list(change()):
                self._add(way)
        return sorted(self.found, key=_cycles)

    def _place(self, cuts: tuple[Cut, ...]) -> None:
        """Tries what may move to DRAM."""
        tried = [self._add(Way(cuts, weight)) for weight in WEIGHTS]
        best = min((one for one in tried if one is not None), key=_cycles, default=None)
        if best is not None:
            for share in STAGING_SHARES[1:]:
                self._add(replace(best.way, share=share))

    def _late(self) -> Iterator[Way]:
        best = min(self.found, key=_cycles)
        if put_off_norms(best.graph, best.plan.residency).streams:
            yield replace(best.way, late=True)

    def _eager(self) -> Iterator[Way]:
        for one in sorted(self.found, key=_cycles)[:EAGER]:
            yield replace(one.way, eager=True)

    def _add(self, way: Way) -> Candidate | None:
        """Makes a program; None where it does not fit, or would be one that was made."""
        try:
            graph, plan = _placed(way, self.graph, self.config)
            rows = frozenset(plan.residency.rows.items())
            kind = way.cuts, way.late, way.eager, rows
            if kind in self._seen:
                return None
            self._seen.add(kind)
            made = _scheduled(way, graph, plan)
        except CapacityError as error:
            self.failures.append(error)
            return None
        self.found.append(made)
        return made


def _cycles(candidate: Candidate) -> int:
    return candidate.cycles
