"""The counting semaphores between the engines."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gateformer.hw.interfaces import SemaphorePort
from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, semaphore_exists


class Semaphores(wiring.Component):
    """A counter from 0 to SEMAPHORE_MAX for each ordered pair of engines that has one.

    `ports` go by engine number. Port c takes a token from counter (p -> c) for every p in its wait
    mask, all in one cycle or none; port p gives one to counter (p -> c) for every c in its signal
    mask, all in one cycle or none. Either happens in the cycle of its ready, at the earliest in the
    one after its valid; valid and mask stay until then. A take and a give of one counter in one
    cycle are both done. Mask bits without a counter are always satisfied.
    """

    ports: Any

    def __init__(self) -> None:
        super().__init__({"ports": In(SemaphorePort()).array(len(SYNC_ENGINES))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        empty = [Signal(len(SYNC_ENGINES), name=f"empty_{e.name.lower()}") for e in SYNC_ENGINES]
        full = [Signal(len(SYNC_ENGINES), name=f"full_{e.name.lower()}") for e in SYNC_ENGINES]
        for e in SYNC_ENGINES:
            port = self.ports[e]
            # Decided a cycle ahead: until then nobody else takes what this port waits for.
            m.d.sync += [
                port.wait_ready.eq(
                    port.wait_valid & ~port.wait_ready & ~(port.wait_mask & empty[e]).any()
                ),
                port.signal_ready.eq(
                    port.signal_valid & ~port.signal_ready & ~(port.signal_mask & full[e]).any()
                ),
            ]
        for p in SYNC_ENGINES:
            for c in SYNC_ENGINES:
                if not semaphore_exists(p, c):
                    continue
                count = Signal(range(SEMAPHORE_MAX + 1), name=f"{p.name}_{c.name}".lower())
                down, up = Signal(), Signal()
                m.d.comb += [
                    empty[c][p].eq(count == 0),
                    full[p][c].eq(count == SEMAPHORE_MAX),
                    down.eq(self.ports[c].wait_ready & self.ports[c].wait_mask[p]),
                    up.eq(self.ports[p].signal_ready & self.ports[p].signal_mask[c]),
                ]
                # Toggled bit by bit: a carry chain would cost twice as much for four bits.
                toggle = up ^ down
                with m.If(toggle):
                    for i in range(len(count)):
                        carry = (count[:i] ^ down.replicate(i)).all()
                        m.d.sync += count[i].eq(count[i] ^ carry)
        return m
