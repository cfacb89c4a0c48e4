"""The scale record of a softmax row: a division, one bit a cycle."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out


class SerialDivider(Component):
    """(multiplier, selector) = spec.arithmetic.reciprocal(numerator, total).

    `start` is heeded while `busy` is 0 and takes the operands; the result stands from the end of
    `busy` until the next start. Takes 17 to 33 cycles, never more than LATENCY.

    The quotient's bits come highest first, so cutting low bits means to stop early: after 32
    steps nothing is cut, after 28 four bits, and so on. The division stops as soon as another four
    steps would lead to more than 16 bits.
    """

    LATENCY = 34

    start: Signal
    numerator: Signal
    total: Signal
    busy: Signal
    multiplier: Signal
    selector: Signal

    def __init__(self, *, total_bits: int) -> None:
        super().__init__(
            {
                "start": In(1),
                "numerator": In(32),
                "total": In(total_bits),
                "busy": Out(1),
                "multiplier": Out(16),
                "selector": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Numerator bits leave at the high end while quotient bits enter at the low one.
        work = Signal(32, reset_less=True)
        remainder = Signal.like(self.total, reset_less=True)
        divisor = Signal.like(self.total, reset_less=True)
        count = Signal(range(33), reset_less=True)

        shifted = Signal(len(remainder) + 1)
        difference = Signal(len(remainder) + 2)
        fits = Signal()
        stop = Signal()
        m.d.comb += [
            shifted.eq(Cat(work[-1], remainder)),
            difference.eq(shifted - divisor),
            fits.eq(~difference[-1]),
            # Four more steps are one shift by 4: they keep to 16 bits if the top four are 0.
            stop.eq(count[5] | (count[4] & (count[:2] == 0) & work[12:16].any())),
            self.multiplier.eq(work[:16]),
        ]

        with m.If(self.start & ~self.busy):
            m.d.sync += [
                self.busy.eq(1),
                work.eq(self.numerator),
                divisor.eq(self.total),
                remainder.eq(0),
                count.eq(0),
            ]
        with m.Elif(self.busy & stop):
            m.d.sync += [self.busy.eq(0), self.selector.eq(count[2:4] - 1)]
            with m.If(divisor == 0):
                m.d.sync += [work[:16].eq(0), self.selector.eq(3)]
            with m.Elif(count == 16):
                m.d.sync += [work[:16].eq(0xFFFF), self.selector.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += [
                work.eq(Cat(fits, work)),
                remainder.eq(Mux(fits, difference, shifted)),
                count.eq(count + 1),
            ]
        return m
