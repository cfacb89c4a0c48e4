"""Adders that fill the carry cells of an FPGA."""

from typing import Literal

from amaranth import Cat, Const, Instance, Module, Mux, Shape, Signal, Value, ValueLike, signed

_MUX_ADD = 0x663C
"""CCU2C's function for B + (D ? A : C): the sum bit is B ^ (D ? A : C), and where that is 0, B is
the carry (bits 3 to 0, where C and D are 0)."""


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


def mux_add(
    m: Module,
    addend: ValueLike,
    select: Value,
    when_1: ValueLike,
    when_0: ValueLike,
    shape: Shape,
    *,
    name: str,
    family: Literal["generic", "ecp5", "ice40"] = "generic",
) -> Signal:
    """addend + (when_1 if select else when_0), modulo 2**width; combinational.

    On ECP5 the choice takes no LUT beside the adder's: CCU2C has a function of four inputs a bit,
    which Yosys leaves half empty. So a counter that is loaded, or an address that goes on from one
    of two, costs no more than its adder.
    """
    total = Signal(shape, name=name)
    if family != "ecp5":
        m.d.comb += total.eq(addend + Mux(select, when_1, when_0))
        return total
    operands = []
    for suffix, operand in (("addend", addend), ("when_1", when_1), ("when_0", when_0)):
        # An operand is extended by its own sign to an even number of bits.
        value = Value.cast(operand)
        wide = Signal(
            Shape(len(total) + len(total) % 2, signed=value.shape().signed),
            name=f"{name}_{suffix}",
        )
        m.d.comb += wide.eq(value)
        operands.append(wide)
    b, a, c = operands
    carry: Value = Const(0, 1)
    bits = Signal(len(b), name=f"{name}_bits")
    for low in range(0, len(b), 2):
        carry_out = Signal(name=f"{name}_carry_{low}")
        ports: dict[str, object] = {"i_CIN": carry, "o_COUT": carry_out}
        for half in (0, 1):
            ports |= {
                f"i_A{half}": a[low + half],
                f"i_B{half}": b[low + half],
                f"i_C{half}": c[low + half],
                f"i_D{half}": select,
                f"o_S{half}": bits[low + half],
                f"p_INIT{half}": Const(_MUX_ADD, 16),
                f"p_INJECT1_{half}": "NO",
            }
        m.submodules[f"{name}_{low}"] = Instance("CCU2C", **ports)
        carry = carry_out
    m.d.comb += total.eq(bits)
    return total


def wrapped(m: Module, position: Value, depth: int, *, name: str) -> Signal:
    """A position of 0 to `depth`, modulo `depth`; combinational.

    depth is an odd number times a power of two: only the bits above that power are looked at.
    """
    result = Signal(range(depth), name=name)
    low = (depth & -depth).bit_length() - 1
    odd = depth >> low
    if odd == 1:
        m.d.comb += result.eq(position)
        return result
    high = position[low:]
    m.d.comb += result.eq(Cat(position[:low], Mux(high == odd, 0, high)))
    return result
