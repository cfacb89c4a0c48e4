"""The scale record of a softmax row: a division, one bit a cycle."""

from typing import Literal

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.adder import mux_add


class SerialDivider(Component):
    """(multiplier, selector) = spec.arithmetic.reciprocal(numerator, total).

    `start` is heeded while `busy` is 0 and takes the total; the numerator is asked for bit by bit:
    `numerator_bit` is its bit `position`, two cycles later. The result stands from the end of
    `busy` until the next start. Takes 19 to 35 cycles, never more than LATENCY.

    Division without restoring: each step adds the divisor to a negative remainder and subtracts it
    from another, and the quotient's bit is 1 if the result is not negative. The bits come highest
    first, so cutting low bits means to stop early: after 32 steps nothing is cut, after 28 four
    bits, and so on. The division stops as soon as another four steps would lead to more than 16
    bits.
    """

    LATENCY = 36

    start: Signal
    total: Signal
    position: Signal
    numerator_bit: Signal
    busy: Signal
    multiplier: Signal
    selector: Signal

    def __init__(
        self, *, total_bits: int, family: Literal["generic", "ecp5", "ice40"] = "generic"
    ) -> None:
        self.family = family
        super().__init__(
            {
                "start": In(1),
                "total": In(total_bits),
                "position": Out(5),
                "numerator_bit": In(1),
                "busy": Out(1),
                "multiplier": Out(16),
                "selector": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        remainder = Signal(Shape(len(self.total) + 1, signed=True), reset_less=True)
        quotient = Signal(16, reset_less=True)
        divisor = Signal.like(self.total, reset_less=True)
        complement = Signal.like(self.total, reset_less=True)
        # Numerator bits asked for, two more than there were steps.
        count = Signal(range(35), reset_less=True)

        stop = Signal()
        # The lowest bits' carry makes a negative of the complement.
        total = mux_add(
            m,
            Cat(1, self.numerator_bit, remainder).as_signed(),
            remainder < 0,
            Cat(0, divisor),
            Cat(1, complement, 1).as_signed(),
            Shape(len(remainder) + 1, signed=True),
            name="total",
            family=self.family,
        )
        following = total[1:].as_signed()
        m.d.comb += [
            self.position.eq(~count[:5]),
            # Four more steps are one shift by 4: they keep to 16 bits if the top four are 0.
            stop.eq(
                count[1] & (count[5] | (count[4] & ~count[0] & quotient[12:].any())),
            ),
        ]
        with m.If(self.start & ~self.busy):
            m.d.sync += [
                self.busy.eq(1),
                divisor.eq(self.total),
                complement.eq(~self.total),
                count.eq(0),
            ]
        with m.Elif(self.busy & stop):
            m.d.sync += self.busy.eq(0)
        with m.Elif(self.busy):
            m.d.sync += [
                quotient.eq(Cat(following >= 0, quotient)),
                remainder.eq(following),
                count.eq(count + 1),
            ]
            with m.If(~count[1:].any()):
                m.d.sync += remainder.eq(0)

        # A quotient that is still too large after three cuts leaves 16 steps behind it.
        nothing = Signal(reset_less=True)
        too_large = Signal(reset_less=True)
        m.d.sync += [nothing.eq(divisor == 0), too_large.eq(~count[5] & (count[2:4] == 0))]
        m.d.comb += [
            self.multiplier.eq(Mux(nothing, 0, quotient | too_large.replicate(16))),
            self.selector.eq(Mux(nothing, 3, Mux(too_large, 0, count[2:4] - 1))),
        ]
        return m
