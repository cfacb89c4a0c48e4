"""Two small products on as few hardware multipliers as the family allows."""

from typing import Literal

from amaranth import ClockSignal, Const, Instance, Module, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier

_OPERAND = signed(8)


class MultiplierPair(Component):
    """p[i] = a[i] * b[i] for two pairs of int8, LATENCY cycles later; new ones every cycle.

    family "ice40" makes one SB_MAC16 of both products, with its registers; elsewhere there are two
    Multipliers.
    """

    LATENCY = Multiplier.LATENCY

    a: data.View
    b: data.View
    p: data.View

    def __init__(self, family: Literal["generic", "ecp5", "ice40"] = "generic") -> None:
        self.family = family
        operands = data.ArrayLayout(_OPERAND, 2)
        super().__init__(
            {"a": In(operands), "b": In(operands), "p": Out(data.ArrayLayout(signed(16), 2))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.family == "ice40":
            m.submodules.multiplier = self._sb_mac16()
            return m
        for i in range(2):
            multiplier = Multiplier(_OPERAND, _OPERAND, self.family)
            m.submodules[f"multiplier_{i}"] = multiplier
            m.d.comb += [
                multiplier.a.eq(self.a[i]),
                multiplier.b.eq(self.b[i]),
                self.p[i].eq(multiplier.p),
            ]
        return m

    def _sb_mac16(self) -> Instance:
        """8x8 mode: the high bytes make the upper half of the output, the low bytes the lower."""
        off = Const(0, 1)
        held = ("AHOLD", "BHOLD", "CHOLD", "DHOLD", "OHOLDTOP", "OHOLDBOT", "OLOADTOP", "OLOADBOT")
        other = ("IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "ADDSUBTOP", "ADDSUBBOT")
        ports: dict[str, object] = {f"i_{name}": off for name in (*held, *other)}
        ports |= {f"i_{name}": off for name in ("CI", "ACCUMCI", "SIGNEXTIN")}
        parameters = {
            "MODE_8x8": 1,
            "A_SIGNED": 1,
            "B_SIGNED": 1,
            "A_REG": 1,
            "B_REG": 1,
            "TOP_8x8_MULT_REG": 1,
            "BOT_8x8_MULT_REG": 1,
        }
        ports |= {f"p_{name}": Const(value, 1) for name, value in parameters.items()}
        ports |= {f"p_{half}OUTPUT_SELECT": Const(2, 2) for half in ("TOP", "BOT")}
        return Instance(
            "SB_MAC16",
            i_CLK=ClockSignal(),
            i_CE=Const(1, 1),
            i_A=self.a.as_value(),
            i_B=self.b.as_value(),
            i_C=Const(0, 16),
            i_D=Const(0, 16),
            o_O=self.p.as_value(),
            **ports,
        )
