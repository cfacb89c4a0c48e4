"""Adders that fill the carry cells of an FPGA."""

from amaranth import Cat, Module, Mux, Signal, Value, signed


def add_signed(m: Module, a: Value, b: Value, width: int, *, name: str) -> Signal:
    """a + b as a signed number of `width` bits, modulo 2**width; combinational.

    Carry cells come in pairs (an ECP5's CCU2C adds two bits), so an odd top bit would cost two of
    them. It is made without: where the operands' bits below it are equal, the carry into the top
    bit is that bit; where they differ, it is what the sum's bit below is not.
    """
    total = Signal(signed(width), name=name)
    x = Signal(signed(width), name=f"{name}_a")
    y = Signal(signed(width), name=f"{name}_b")
    m.d.comb += [x.eq(a), y.eq(b)]
    if width % 2 == 0 or width == 1:
        m.d.comb += total.eq(x + y)
        return total
    low = Signal(width - 1, name=f"{name}_low")
    carry = Mux(x[-2] == y[-2], x[-2], ~low[-1])
    m.d.comb += [low.eq(x[:-1] + y[:-1]), total.eq(Cat(low, x[-1] ^ y[-1] ^ carry))]
    return total
