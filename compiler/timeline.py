"""When every engine worked on what: the record of one run, predicted or simulated."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateformer.spec.isa import Engine


class Reason(enum.Enum):
    """Why an engine stands still."""

    QUEUE = "queue"
    """No instruction: the engine has done its last one, and the next is not fetched yet."""
    SEMAPHORE = "semaphore"
    """Tokens of other engines are awaited."""
    OPERAND = "operand"
    """An operand is not in its ring (ARRAY, EPILOGUE) or its ring has no room (loaders)."""
    MEMORY_PORT = "memory port"
    """Other engines have the port of local memory."""
    DRAM = "dram"
    """External memory is closed, busy for the fetch, or on its way to the first beat."""
    DRAIN = "drain"
    """Results have nowhere to go (ARRAY: the accumulator buffer is full)."""


@dataclass(frozen=True)
class Span:
    """One instruction at one engine; a GEMM has a span at each of its three engines.

    index: its position in the program. Cycles count from the start of the program. ready: the
    engine holds it and has completed the one before. start: its tokens are there and the engine
    begins. end: the engine has completed it. waits: cycles in which the engine stood still between
    the end of its span before (or 0) and `end`, by reason: up to `ready` for want of instructions,
    up to `start` for tokens, then for everything else.
    """

    engine: Engine
    index: int
    ready: int
    start: int
    end: int
    waits: Mapping[Reason, int] = field(default_factory=dict)

    @property
    def busy(self) -> int:
        """Cycles in which the engine worked on it: start to end, without the waits inside."""
        outside = (Reason.QUEUE, Reason.SEMAPHORE)
        inside = sum(cycles for reason, cycles in self.waits.items() if reason not in outside)
        return self.end - self.start - inside


@dataclass(frozen=True)
class Timeline:
    """One run: all spans, each engine's in program order, and the cycles from start to done.

    dram_beats: beats that moved over the bus, instructions included. dram_cycles: cycles in which
    the bus was occupied, by bursts, row misses and refresh.
    """

    spans: tuple[Span, ...]
    cycles: int
    dram_beats: int = 0
    dram_cycles: int = 0

    def of(self, engine: Engine) -> list[Span]:
        """An engine's spans in the order in which it ran them."""
        return [span for span in self.spans if span.engine is engine]

    def busy(self, engine: Engine) -> int:
        """Cycles in which an engine worked: what its spans take, without the waits inside."""
        return sum(span.busy for span in self.of(engine))

    def waits(self, engine: Engine) -> dict[Reason, int]:
        """Cycles that an engine stood still, by reason."""
        return total_waits(self.of(engine))


def total_waits(spans: Iterable[Span]) -> dict[Reason, int]:
    """The waits of several spans, added up."""
    total: dict[Reason, int] = {}
    for span in spans:
        for reason, cycles in span.waits.items():
            total[reason] = total.get(reason, 0) + cycles
    return total
