"""One product on one hardware multiplier, with its registers inside the multiplier."""

from typing import Literal

from amaranth import Cat, ClockSignal, Const, Instance, Module, Shape, Signal
from amaranth.lib.wiring import Component, In, Out

_ECP5_WIDTH = 18


def product_shape(a_shape: Shape, b_shape: Shape) -> Shape:
    """The shape that holds every product of the two."""
    return Shape(a_shape.width + b_shape.width, signed=a_shape.signed or b_shape.signed)


class Multiplier(Component):
    """p = a * b, LATENCY cycles later; a new product every cycle.

    The operands are registered, and so is the product; no register has a reset. family: "ecp5"
    makes a MULT18X18D with its own registers, since Yosys packs none into it; elsewhere the product
    and its registers are left to inference (with -dsp, Yosys packs them into an SB_MAC16).

    Raises ValueError when an operand is wider than the family's multiplier: split it before.
    """

    LATENCY = 2

    a: Signal
    b: Signal
    p: Signal

    def __init__(
        self,
        a_shape: Shape,
        b_shape: Shape,
        family: Literal["generic", "ecp5", "ice40"] = "generic",
    ) -> None:
        if family == "ecp5":
            for shape in (a_shape, b_shape):
                if _signed_width(shape) > _ECP5_WIDTH:
                    raise ValueError(
                        f"{shape!r} is too wide for MULT18X18D: at most signed(18) or unsigned(17)"
                    )
        self.family = family
        super().__init__(
            {"a": In(a_shape), "b": In(b_shape), "p": Out(product_shape(a_shape, b_shape))}
        )

    def elaborate(self, platform: object) -> Module:
        return self._mult18x18d() if self.family == "ecp5" else self._inferred()

    def _inferred(self) -> Module:
        m = Module()
        a = Signal.like(self.a, name="a_register", reset_less=True)
        b = Signal.like(self.b, name="b_register", reset_less=True)
        p = Signal.like(self.p, name="p_register", reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b), p.eq(a * b)]
        m.d.comb += self.p.eq(p)
        return m

    def _mult18x18d(self) -> Module:
        m = Module()
        product = Signal(2 * _ECP5_WIDTH)
        ports: dict[str, object] = {}
        # Operands fill the high end, zeros the low one: constants cost no routing, copies of a sign
        # bit would.
        for name, operand in (("A", self.a), ("B", self.b)):
            width = _signed_width(operand.shape())
            extended = Signal(Shape(width, signed=True), name=f"{name.lower()}_extended")
            m.d.comb += extended.eq(operand)
            bits = Cat(Const(0, _ECP5_WIDTH - width), extended)
            ports |= {f"i_{name}{i}": bits[i] for i in range(_ECP5_WIDTH)}
            ports |= {f"i_SIGNED{name}": Const(1), f"i_SOURCE{name}": Const(0)}
        ports |= {f"o_P{i}": product[i] for i in range(2 * _ECP5_WIDTH)}
        # The cascade inputs, C and the other clocks stay open: nextpnr ties them off itself, and
        # can not route a constant to a clock.
        ports |= {"i_CLK0": ClockSignal(), "i_CE0": Const(1), "i_RST0": Const(0)}
        for stage in ("INPUTA", "INPUTB", "OUTPUT"):
            ports |= {f"p_REG_{stage}_CLK": "CLK0", f"p_REG_{stage}_CE": "CE0"}
        ports |= {f"p_REG_{stage}_CLK": "NONE" for stage in ("INPUTC", "PIPELINE")}
        m.submodules.multiplier = Instance(
            "MULT18X18D", p_GSR="DISABLED", p_RESETMODE="SYNC", **ports
        )
        low = sum(_ECP5_WIDTH - _signed_width(x.shape()) for x in (self.a, self.b))
        m.d.comb += self.p.eq(product[low:])
        return m


def _signed_width(shape: Shape) -> int:
    """Bits of the signed number that holds every value of the shape."""
    return shape.width + (not shape.signed)
