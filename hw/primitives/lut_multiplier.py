"""A product made of LUTs, for FPGAs whose multipliers are all taken."""

from typing import Literal

from amaranth import Cat, Const, Instance, Module, Shape, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

_ADD = 0x7888
"""CCU2C's function for A*B + C*D, bit by bit: A & B is the carry where the two are equal."""
_SUBTRACT = 0x8777
"""CCU2C's function for C*D - A*B with a carry of 1 in: ~(A & B) is the carry."""


class LutMultiplier(Component):
    """p = a * b of two signed numbers of `bits` bits, LATENCY cycles later; one a cycle.

    bits is 4 or 8. Two bits of `a` at a time make a row, b times their value, and the rows are
    added up in pairs. On ECP5 a bit of a row takes one function of a CCU2C, gates and adder
    together: 72 LUT-eq for 8 bits. No register has a reset.
    """

    LATENCY = 3

    a: Signal
    b: Signal
    p: Signal

    def __init__(self, bits: int, family: Literal["generic", "ecp5", "ice40"] = "generic") -> None:
        if bits not in (4, 8):
            raise ValueError(f"a product of LUTs has operands of 4 or 8 bits, not {bits}")
        self.bits = bits
        self.family = family
        super().__init__({"a": In(signed(bits)), "b": In(signed(bits)), "p": Out(signed(2 * bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.bits
        terms: list[Signal] = []
        for low in range(0, bits, 2):
            row = Signal(signed(bits + 2), name=f"row_{low}", reset_less=True)
            m.d.sync += row.eq(self._row(m, self.a[low], self.a[low + 1], low == bits - 2, low))
            terms.append(row)
        stages = 1
        # How many bits a term stands to the left of the one before.
        shift = 2
        while len(terms) > 1:
            sums = []
            for i in range(0, len(terms), 2):
                below, above = terms[i], terms[i + 1]
                total = Signal(signed(len(above) + shift), name=f"sum_{shift}_{i}", reset_less=True)
                upper = Signal(signed(len(above)), name=f"upper_{shift}_{i}")
                m.d.comb += upper.eq((below >> shift) + above)
                m.d.sync += total.eq(Cat(below[:shift], upper))
                sums.append(total)
            terms, stages, shift = sums, stages + 1, 2 * shift
        product = terms[0]
        for stage in range(stages, self.LATENCY):
            delayed = Signal(product.shape(), name=f"product_{stage}", reset_less=True)
            m.d.sync += delayed.eq(product)
            product = delayed
        m.d.comb += self.p.eq(product)
        return m

    def _row(self, m: Module, one: Value, two: Value, negative: bool, number: int) -> Signal:
        """b * (one + 2 * two), or b * (one - 2 * two)."""
        bits = self.bits
        shape = Shape(bits + 2, signed=True)
        result = Signal(shape, name=f"next_row_{number}")
        if self.family != "ecp5":
            first = (self.b & one.replicate(bits).as_signed()).as_signed()
            second = (self.b & two.replicate(bits).as_signed()).as_signed() << 1
            m.d.comb += result.eq(first - second if negative else first + second)
            return result
        b_once = [self.b[min(i, bits - 1)] for i in range(bits + 2)]
        b_twice = [Const(0, 1), *b_once[:-1]]
        carry: Value = Const(int(negative), 1)
        sum_bits = Signal(bits + 2, name=f"row_bits_{number}")
        for low in range(0, bits + 2, 2):
            carry_out = Signal(name=f"row_carry_{number}_{low}")
            ports: dict[str, object] = {"i_CIN": carry, "o_COUT": carry_out}
            for half in (0, 1):
                once, twice = (one, b_once[low + half]), (two, b_twice[low + half])
                gates = (*twice, *once) if negative else (*once, *twice)
                ports |= {f"i_{p}{half}": gate for p, gate in zip("ABCD", gates, strict=True)}
                ports |= {
                    f"o_S{half}": sum_bits[low + half],
                    f"p_INIT{half}": Const(_SUBTRACT if negative else _ADD, 16),
                    f"p_INJECT1_{half}": "NO",
                }
            m.submodules[f"row_{number}_{low}"] = Instance("CCU2C", **ports)
            carry = carry_out
        m.d.comb += result.eq(sum_bits)
        return result
