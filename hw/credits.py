"""A counting semaphore inside one clock domain."""

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out


class Credits(Component):
    """Counts from 0 to `limit`: `give` adds one, `take` removes one, both may come together.

    `available` (a register) is 1 while the count is not 0, from the cycle after the `give` that
    made it so. `take` is allowed only while `available`, `give` only below the limit.
    """

    give: Signal
    take: Signal
    available: Signal

    def __init__(self, limit: int, *, init: int = 0) -> None:
        self.limit = limit
        self.init = init
        super().__init__({"give": In(1), "take": In(1), "available": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(range(self.limit + 1), init=self.init)
        available = Signal(init=self.init != 0)
        m.d.comb += self.available.eq(available)
        with m.If(self.give != self.take):
            m.d.sync += count.eq(count + Mux(self.give, 1, -1))
            m.d.sync += available.eq(self.give | (count != 1))
        return m
