"""Scale, rounding, saturation and residual, with a multiplication in LUTs, digit by digit."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_lane import LANE_MODE
from gateformer.spec.config import AcceleratorConfig

_DIGITS = 2
"""Digits of radix 4 in a cycle."""
_STEP = 2 * _DIGITS


class SerialLane(Component):
    """Scales one total at a time; see `ScalingLane` for `mode`.

    `start` (only while `idle`) takes `total`; `multiplier` (1 for mode.total) and `selector` stay
    until `idle`. The residual, 0 when there is none, is taken while `residual_valid`. Some cycles
    later `done` is 1 until `next`: `output` is then the result, in which `activated` is the
    activation of `code` of two cycles before (0 unless mode.activation). With mode.total, `done`
    comes twice: for the low half of the total, and after `next` for the upper one.

    Booth's recoding (A signed binary multiplication technique, 1951) of four bits of the total a
    cycle, from the lowest on: 8 cycles, and one for each step of the selector, while the product's
    low bits leave to the right, so that what is left is shifted already. 5 cycles finish an output,
    2 of them for the activation.
    """

    start: Signal
    idle: Signal
    total: Signal
    multiplier: Signal
    selector: Signal
    residual: Signal
    residual_valid: Signal
    mode: View
    code: Signal
    activated: Signal
    output: Signal
    done: Signal
    next: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "idle": Out(1),
                "total": In(32),
                "multiplier": In(16),
                "selector": In(2),
                "residual": In(signed(16)),
                "residual_valid": In(1),
                "mode": In(LANE_MODE),
                "code": Out(signed(17)),
                "activated": In(8),
                "output": Out(16),
                "done": Out(1),
                "next": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mode = self.mode
        low = Signal(32, reset_less=True)
        high = Signal(signed(20), reset_less=True)
        last_bit = Signal(reset_less=True)
        left = Signal(range(12))
        product = Signal()
        upper = Signal()

        # A digit is -2 to 2: two bits, and the one below.
        value: Value = high
        bits = Cat(last_bit, low)
        out: list[Value] = []
        for digit in range(_DIGITS):
            below, this, sign = (bits[2 * digit + i] for i in range(3))
            once = Signal(name=f"once_{digit}")
            twice = Signal(name=f"twice_{digit}")
            negative = Signal(name=f"negative_{digit}")
            m.d.comb += [
                once.eq(product & (below ^ this)),
                twice.eq(product & (below == this) & (this != sign)),
                negative.eq(product & sign),
            ]
            multiple = Signal(19, name=f"multiple_{digit}")
            total = Signal(signed(20), name=f"sum_{digit}")
            chosen = Mux(once, self.multiplier, 0) | Mux(twice, self.multiplier << 1, 0)
            m.d.comb += [
                multiple.eq(chosen ^ negative.replicate(19)),
                total.eq(value + multiple.as_signed() + negative),
            ]
            out.append(total[:2])
            value = total >> 2
        rounded = Signal(signed(18), reset_less=True)
        beyond = Signal(reset_less=True)
        code = Signal(signed(17), reset_less=True)
        wide = Cat(low[16:], high[0]).as_signed()
        m.d.comb += [
            self.code.eq(code),
            self.output.eq(self._output(code)),
        ]
        with m.FSM() as fsm:
            m.d.comb += self.idle.eq(fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [
                    low.eq(self.total),
                    high.eq(0),
                    last_bit.eq(0),
                    product.eq(1),
                    upper.eq(0),
                    left.eq(Mux(mode.total, 16 // _STEP - 1, 32 // _STEP - 1)),
                ]
                with m.If(self.start):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    Cat(last_bit, low).eq(Cat(low[_STEP - 1], low[_STEP:], *out)),
                    high.eq(value),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.next = "ROUND"
                    with m.If(product & ~mode.total & (self.selector != 0)):
                        m.d.sync += [product.eq(0), left.eq(self.selector - 1)]
                        m.next = "MULTIPLY"
            with m.State("ROUND"):
                half = low[15] & ~mode.total
                m.d.sync += [
                    rounded.eq(wide + half),
                    beyond.eq(~_all_equal(high) & ~mode.total),
                ]
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += code.eq(
                    self._limited(rounded, beyond, Mux(beyond, high[-1], rounded[-1]))
                    + self.residual
                )
                with m.If(self.residual_valid):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.next):
                    m.d.sync += [upper.eq(1), left.eq(16 // _STEP - 1)]
                    m.next = "IDLE"
                    with m.If(mode.total & ~upper):
                        m.next = "MULTIPLY"
        return m

    def _limited(self, rounded: Value, beyond: Value, sign: Value) -> Value:
        """The value saturated to the width of the mode, signed(16)."""
        config, mode = self.config, self.mode
        wide = mode.wide
        activation = mode.activation | wide
        # A group of bits above the narrow range belongs to the ranges of the modes that reach it.
        groups = (
            (0, 7, None),
            (7, config.activation_bits - 1, activation),
            (config.activation_bits - 1, config.residual_bits - 1, wide),
        )
        outside = beyond | ~_all_equal(rounded[config.residual_bits - 1 :])
        limit = []
        for low, high, reached in groups:
            bits = rounded[low:high]
            if reached is None:
                limit.append((~sign).replicate(high - low))
                continue
            outside |= ~reached & (bits ^ rounded[-1].replicate(high - low)).any()
            limit.append((reached ^ sign).replicate(high - low))
        limit.append(sign.replicate(17 - config.residual_bits))
        return Mux(outside & ~mode.total, Cat(limit), rounded[:16]).as_signed()

    def _output(self, code: Value) -> Value:
        """The code limited to residual_bits, or a byte twice."""
        mode, bits = self.mode, self.config.residual_bits
        sign = code[-1]
        outside = mode.wide & ~mode.total & ~_all_equal(code[bits - 1 :])
        limit = Cat((~sign).replicate(bits - 1), sign.replicate(17 - bits))
        value = Mux(outside, limit, code[:16])
        byte = Mux(mode.activation, self.activated, value[:8])
        return Cat(byte, Mux(mode.wide, value[8:], byte))


def _all_equal(bits: Value) -> Value:
    return bits.all() | ~bits.any()
