"""The counting semaphores between the engines."""

from functools import reduce
from operator import and_, or_
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.interfaces import SemaphorePort
from gateformer.spec.isa import LOADERS, SEMAPHORE_MAX, SYNC_ENGINES, Engine, semaphore_exists

GROUPS: tuple[tuple[Engine, ...], ...] = (
    tuple(e for e in SYNC_ENGINES if e not in LOADERS),
    LOADERS,
)
"""Consumers that are looked after in turns, one of each group in a cycle."""
TURNS = len(LOADERS)
"""Cycles from one look at a consumer to the next."""
_BITS = SEMAPHORE_MAX.bit_length()


class Semaphores(wiring.Component):
    """A counter from 0 to SEMAPHORE_MAX for each ordered pair of engines that has one.

    `ports` go by engine number. Port c takes a token from counter (p -> c) for every p in its wait
    mask, all in one cycle or none. Port p hands in its signal mask; one token for every c in it
    is then given, each as soon as its counter has room, and until all are given the port hands in
    no other. Mask bits without a counter are always satisfied. `idle`: nothing is left to give.

    The consumers of a group take turns of one cycle, and the counters go round with them: a row of
    three stages, of which the first tells empty and full counters, the second decides, and the
    third counts. So there is one piece of logic for each producer and group in place of one for
    each counter. A token that is given can be taken in the same turn.

    Timing: a mask is handed in (`signal_ready`) up to TURNS - 1 cycles after `signal_valid`; its
    tokens are given one to TURNS cycles later; `wait_ready` follows the taking by a cycle, at the
    earliest two cycles after `wait_valid`.
    """

    ports: Any
    idle: Signal

    def __init__(self) -> None:
        super().__init__({"ports": In(SemaphorePort()).array(len(SYNC_ENGINES)), "idle": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # In turn t the first stage holds consumer t of each group, the second consumer t - 1.
        turn = Signal(TURNS, init=1)
        m.d.sync += turn.eq(turn.rotate_left(1))

        pending: dict[Engine, list[Value]] = {e: [] for e in SYNC_ENGINES}
        accepts = {}
        for e in SYNC_ENGINES:
            accepts[e] = Signal(name=f"accepts_{e.name.lower()}")
            m.d.comb += self.ports[e].signal_ready.eq(accepts[e])
        for consumers in GROUPS:
            self._group(m, consumers, turn, accepts, pending)
        free = {e: ~reduce(or_, pending[e]) for e in SYNC_ENGINES}
        for e in SYNC_ENGINES:
            # Then the stages hold the consumers in the order of the group.
            m.d.comb += accepts[e].eq(self.ports[e].signal_valid & turn[-1] & free[e])
        m.d.comb += self.idle.eq(reduce(and_, free.values()))
        return m

    def _group(
        self,
        m: Module,
        consumers: tuple[Engine, ...],
        turn: Signal,
        accepts: dict[Engine, Signal],
        pending: dict[Engine, list[Value]],
    ) -> None:
        """The counters of a group of consumers."""
        name = consumers[0].name.lower()
        waits = Signal(name=f"waits_{name}")
        m.d.sync += waits.eq(
            reduce(or_, (turn[i] & self.ports[c].wait_valid for i, c in enumerate(consumers)))
        )
        served, taken = [], Signal(name=f"taken_{name}")
        for p in SYNC_ENGINES:
            existing = [semaphore_exists(p, c) for c in consumers]
            if not any(existing):
                continue
            suffix = f"{p.name}_{name}".lower()
            count = [Signal(_BITS, name=f"count_{i}_{suffix}") for i in range(TURNS)]
            due = [Signal(name=f"due_{i}_{suffix}") for i in range(TURNS)]
            empty, full = Signal(name=f"empty_{suffix}"), Signal(name=f"full_{suffix}")
            wanted, gives = Signal(name=f"wanted_{suffix}"), Signal(name=f"gives_{suffix}")
            takes = Signal(name=f"takes_{suffix}")
            pending[p] += due

            # The first stage.
            m.d.sync += [
                count[1].eq(count[0]),
                empty.eq(count[0] == 0),
                full.eq(count[0] == SEMAPHORE_MAX),
                wanted.eq(
                    reduce(
                        or_,
                        (
                            turn[i] & self.ports[c].wait_mask[p]
                            for i, c in enumerate(consumers)
                            if existing[i]
                        ),
                    )
                ),
            ]
            # The second one. `due` goes round like the counters. When a mask comes in, turn is
            # TURNS - 1, and in the next cycle stage i holds consumer -i.
            served.append(~wanted | ~empty | due[1])
            left = [due[2], due[0], due[1] & full]
            for i in range(TURNS):
                consumer = -i % TURNS
                comes = accepts[p] & self.ports[p].signal_mask[consumers[consumer]]
                m.d.sync += due[i].eq(left[i] | (comes if existing[consumer] else 0))
            m.d.sync += [
                count[2].eq(count[1]),
                gives.eq(due[1] & ~full),
                takes.eq(wanted),
            ]
            # The third one: bit by bit, for a carry chain would cost twice as much for four bits.
            changes = Signal(name=f"changes_{suffix}")
            down = takes & taken
            m.d.comb += changes.eq(gives ^ down)
            carry: Value = changes
            for i in range(_BITS):
                m.d.sync += count[0][i].eq(count[2][i] ^ carry)
                carry = carry & (count[2][i] == gives)
        m.d.sync += taken.eq(waits & reduce(and_, served))
        for i, c in enumerate(consumers):
            # Decided in the turn after the consumer's, seen in the one after that.
            m.d.comb += self.ports[c].wait_ready.eq(taken & turn[(i + 2) % TURNS])
