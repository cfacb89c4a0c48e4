"""An adder one of whose operands is joined from two signals inside the carry chain."""

from typing import Literal

from amaranth import Cat, Const, Instance, Module, Shape, Signal, Value
from amaranth.lib.wiring import Component, In, Out

_INIT = {"or": 0x56AA, "xor": 0x96AA}
"""A CCU2C half adds A to a function of B and C while D is 1; with D at 0 it is A, the carry that
A and an equal operand generate."""


class JoiningAdder(Component):
    """p = a + (b | c) + carry, or a + (b ^ c) + carry, cut to `width` bits; combinational.

    family: "ecp5" makes a chain of CCU2C, whose LUTs have an input left for `c`, while Yosys would
    spend a LUT a bit on joining it to `b`; elsewhere the sum is left to inference.
    """

    a: Signal
    b: Signal
    c: Signal
    carry: Signal
    p: Signal

    def __init__(
        self,
        width: int,
        *,
        join: Literal["or", "xor"],
        family: Literal["generic", "ecp5", "ice40"] = "generic",
    ) -> None:
        self.width = width
        self.join = join
        self.family = family
        shape = Shape(width)
        super().__init__(
            {"a": In(shape), "b": In(shape), "c": In(shape), "carry": In(1), "p": Out(shape)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.family == "ecp5":
            self._ccu2c(m)
        else:
            joined = self.b | self.c if self.join == "or" else self.b ^ self.c
            m.d.comb += self.p.eq(self.a + joined + self.carry)
        return m

    def _ccu2c(self, m: Module) -> None:
        spare = Const(0, self.width % 2)
        a, b, c = (Cat(operand, spare) for operand in (self.a, self.b, self.c))
        total = Signal(len(a))
        carry: Value = self.carry
        for pair in range(len(a) // 2):
            ports: dict[str, object] = {"i_CIN": carry}
            carry = Signal(name=f"carry_{pair}")
            ports["o_COUT"] = carry
            for half in range(2):
                bit = 2 * pair + half
                ports |= {
                    f"i_A{half}": a[bit],
                    f"i_B{half}": b[bit],
                    f"i_C{half}": c[bit],
                    f"i_D{half}": Const(1, 1),
                    f"o_S{half}": total[bit],
                    f"p_INIT{half}": Const(_INIT[self.join], 16),
                    f"p_INJECT1_{half}": "NO",
                }
            m.submodules[f"pair_{pair}"] = Instance("CCU2C", **ports)
        m.d.comb += self.p.eq(total)
