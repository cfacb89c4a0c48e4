"""A counting semaphore inside one clock domain."""

from amaranth import Cat, Module, Signal
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
        # Counted below 0, so that the sign tells.
        count = Signal(range(-self.limit, 1), init=-self.init)
        one = Cat(1, (~self.take).replicate(len(count) - 1)).as_signed()
        m.d.comb += self.available.eq(count[-1])
        with m.If(self.give != self.take):
            m.d.sync += count.eq(count + one)
        return m
