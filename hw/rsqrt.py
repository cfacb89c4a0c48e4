"""Reciprocal square root: a table and one Newton step on one multiplier."""

from typing import Literal

from amaranth import Module, Mux, Shape, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.arithmetic import RSQRT_INDEX_BITS, rsqrt_table


class Rsqrt(Component):
    """(root, exponent) = spec.arithmetic.rsqrt(value); a value of 0 counts as 1.

    `start` is heeded while `busy` is 0 and takes the value; the result stands from the end of
    `busy` until the next start. Takes at most `latency` cycles: the value is shifted by two bits a
    cycle until its mantissa has an integer part. width: bits of the value, even, at least 18.
    """

    start: Signal
    value: Signal
    busy: Signal
    root: Signal
    exponent: Signal

    def __init__(
        self, *, width: int, family: Literal["generic", "ecp5", "ice40"] = "generic"
    ) -> None:
        self.width = width
        self.family = family
        super().__init__(
            {
                "start": In(1),
                "value": In(width),
                "busy": Out(1),
                "root": Out(16),
                "exponent": Out(range(width // 2)),
            }
        )

    @property
    def latency(self) -> int:
        """Most cycles from `start` to the end of `busy`."""
        return self.width // 2 + 12

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shifted = Signal(self.width, reset_less=True)
        integer = Signal(2)
        mantissa = Signal(16)
        m.d.comb += [
            integer.eq(shifted[-2:]),
            mantissa.eq(shifted[-16:]),
            mantissa[14].eq(shifted[-2] | ~shifted[-1]),
        ]

        table = Memory(
            shape=16,
            depth=1 << RSQRT_INDEX_BITS,
            init=[int(entry) for entry in rsqrt_table()],
            attrs={"ram_style": "block"},
        )
        m.submodules.table = table
        entry = table.read_port()
        entry_1 = Signal(16, reset_less=True)
        m.d.comb += entry.addr.eq(mantissa[-RSQRT_INDEX_BITS:])
        m.d.sync += entry_1.eq(entry.data)

        # r0 * r0, then the mantissa times that, then r0 times the correction: with t = 2**16 + d,
        # r0 * (3 * 2**16 - t) / 2**17 is r0 + r0 * -d / 2**17, so the factor is small.
        operand = Shape(17, signed=True)
        multiplier = Multiplier(Shape(16), operand, self.family)
        m.submodules.multiplier = multiplier
        factor = Signal(operand, reset_less=True)
        product = multiplier.p
        use_mantissa = Signal()
        m.d.comb += [
            multiplier.a.eq(Mux(use_mantissa, mantissa, self.root)),
            multiplier.b.eq(factor),
        ]

        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [
                    self.busy.eq(1),
                    shifted.eq(self.value),
                    self.exponent.eq(self.width // 2 - 1),
                ]
                m.next = "NORMALIZE"
            with m.State("NORMALIZE"):
                with m.If((integer != 0) | (self.exponent == 0)):
                    m.next = "LOOK_UP"
                with m.Else():
                    m.d.sync += [
                        shifted.eq(shifted << 2),
                        self.exponent.eq(self.exponent - 1),
                    ]
            with m.State("LOOK_UP"):
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += [self.root.eq(entry_1), factor.eq(entry_1)]
                m.next = "SQUARE_1"
            for state, following in (("SQUARE", "NEWTON"), ("NEWTON", "CORRECT"), ("CORRECT", "")):
                with m.State(f"{state}_1"):
                    m.d.comb += use_mantissa.eq(state == "NEWTON")
                    m.next = f"{state}_2"
                with m.State(f"{state}_2"):
                    m.next = f"{state}_3"
                with m.State(f"{state}_3"):
                    if state == "SQUARE":
                        m.d.sync += factor.eq(product[16:32])
                    elif state == "NEWTON":
                        m.d.sync += factor.eq((1 << 16) - product[14:32])
                    else:
                        m.d.sync += [self.root.eq(self.root + (product >> 17)), self.busy.eq(0)]
                    m.next = f"{following}_1" if following else "IDLE"
        return m
