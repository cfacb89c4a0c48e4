"""One lane of the epilogue's arithmetic: bias, addend, scale, rounding, saturation, residual."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_pipeline import cleared, delayed
from gateformer.hw.interfaces import accumulator_shape
from gateformer.hw.primitives.joining_adder import JoiningAdder
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.arithmetic import SCALE_SHIFTS
from gateformer.spec.config import AcceleratorConfig

RECORD = data.StructLayout({"bias": signed(32), "multiplier": 16, "selector": 2})
"""The bits of a scale record that mean something."""
LANE_MODE = data.StructLayout({"activation": 1, "wide": 1, "total": 1})
"""What an instruction wants of a lane: the code of an activation, INT16, or halves of INT32; none
of them for INT8."""
_SHIFT_RANGE = SCALE_SHIFTS[-1] - SCALE_SHIFTS[0]


class ScalingLane(Component):
    """A new output every cycle. Times are cycles after `sum`, `addend` and `record`.

    total = wrap32(sum + (addend[0] | addend[1]) + bias). code = saturate(scale(total), bits) +
    residual at CODE_TIME, whose low bits are the activation's input; residual is wanted at
    RESIDUAL_TIME, 0 when there is none. `bits` is activation_bits while mode.activation, else
    residual_bits while mode.wide, else 8. `output` at `output_time`: the int8 of `activated`
    (wanted at `activated_time`, 0 unless mode.activation) or of the code in both of its bytes; or,
    while mode.wide, saturate(code, residual_bits). While mode.total, it is the half of the total
    that `upper` chose (wanted with `sum`), and mode.wide is 1 too. The mode stays while outputs are
    under way.

    The product is shifted by a multiplication with a power of two: in 18x18 multipliers that takes
    half the LUTs of multiplexers. Between the shift and the residual, a value is held as its bits
    XOR its sign: a saturated one is then all ones below its width whatever its sign, which the
    flip-flops' own set and reset can do. Rounding costs no adder: its bit is the carry into the
    residual's sum, left out where the value is saturated or already the largest.
    """

    RESIDUAL_TIME = 9
    CODE_TIME = RESIDUAL_TIME + 1

    sum: Signal
    upper: Signal
    record: View
    addend: View
    residual: Signal
    mode: View
    code: Signal
    activated: Signal
    output: Signal

    def __init__(self, config: AcceleratorConfig, *, activation_latency: int) -> None:
        self.config = config
        self.activation_latency = activation_latency
        self.activated_time = self.CODE_TIME + activation_latency
        self.output_time = self.activated_time + 2
        super().__init__(
            {
                "sum": In(accumulator_shape(config)),
                "upper": In(1),
                "record": In(RECORD),
                "addend": In(data.ArrayLayout(signed(32), 2)),
                "residual": In(signed(16)),
                "mode": In(LANE_MODE),
                "code": Out(signed(17)),
                "activated": In(8),
                "output": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        family = self.config.family

        # 0 and 1: the total.
        m.submodules.add = add = JoiningAdder(32, join="or", family=family)
        added = Signal(32, reset_less=True)
        total = Signal(32)
        bias = delayed(m, self.record.bias, 1, "bias")
        m.d.comb += [
            add.a.eq(self.sum),
            add.b.eq(self.addend[0]),
            add.c.eq(self.addend[1]),
            total.eq(added + bias),
        ]
        m.d.sync += added.eq(add.p)

        # 1 to 4: times the multiplier. For a half of the total that is 1 or 2**16, since the shift
        # by 16 follows.
        halves = Mux(self.mode.total, Cat(self.upper, ~self.upper), 0)
        record_multiplier = cleared(m, self.record.multiplier, self.mode.total, "multiplier")
        half = delayed(m, halves, 1, "half")
        multiplier = Cat(record_multiplier | half[0], half[1])
        m.submodules.low = low = Multiplier(unsigned(16), unsigned(17), family)
        m.submodules.high = high = Multiplier(signed(16), unsigned(17), family)
        m.d.comb += [
            low.a.eq(total[:16]),
            high.a.eq(total[16:].as_signed()),
            low.b.eq(multiplier),
            high.b.eq(multiplier),
        ]
        # Bits 15 to 47 of the product: below the smallest shift only the bit that rounds.
        product = Signal(33, reset_less=True)
        m.d.sync += product.eq(Cat(low.p[15], (high.p + low.p[16:])[:32]))

        # 4 to 6: the shift. `shifted` has a bit below the point.
        selector = cleared(m, self.record.selector, self.mode.total, "selector")
        selector = delayed(m, selector, 2, "selector_delayed")
        factor = Signal(_SHIFT_RANGE + 1, reset_less=True)
        for number, shift in enumerate(SCALE_SHIFTS):
            m.d.sync += factor[SCALE_SHIFTS[-1] - shift].eq(selector == number)
        m.submodules.shift_low = shift_low = Multiplier(
            unsigned(17), unsigned(_SHIFT_RANGE + 1), family
        )
        m.submodules.shift_high = shift_high = Multiplier(
            signed(16), unsigned(_SHIFT_RANGE + 1), family
        )
        m.d.comb += [
            shift_low.a.eq(product[:17]),
            shift_high.a.eq(product[17:].as_signed()),
            shift_low.b.eq(factor),
            shift_high.b.eq(factor),
        ]
        space = 17 - _SHIFT_RANGE
        shifted = shift_low.p[_SHIFT_RANGE:][:17] | (shift_high.p << space)[:17]
        above = shift_high.p[_SHIFT_RANGE:-1]

        value, carry, negative = self._saturate(m, shifted, above, shift_high.p[-1])

        # 9, 10: the code, a bit wider than its summands.
        m.submodules.add_residual = add_residual = JoiningAdder(17, join="xor", family=family)
        code = Signal(signed(17), reset_less=True)
        m.d.comb += [
            add_residual.a.eq(self.residual),
            add_residual.b.eq(Cat(value, Const(0, 1))),
            add_residual.c.eq(negative.replicate(17)),
            add_residual.carry.eq(carry),
            self.code.eq(code),
        ]
        m.d.sync += code.eq(add_residual.p.as_signed())
        self._output(m, code)
        return m

    def _saturate(
        self, m: Module, shifted: Value, above: Value, sign: Value
    ) -> tuple[Signal, Signal, Signal]:
        """Times 6 to 9: (value XOR sign, limited to `bits`; the rounding to be added; sign)."""
        config, mode = self.config, self.mode
        flipped = Signal(16, reset_less=True)
        half = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        # Three bits above the value, the sign and one LUT.
        beyond = Signal(-(-len(above) // 3), reset_less=True)
        m.d.sync += [
            flipped.eq(shifted[1:] ^ sign.replicate(16)),
            half.eq(shifted[0]),
            negative.eq(sign),
            beyond.eq(
                Cat(
                    (above[i : i + 3] ^ sign.replicate(len(above[i : i + 3]))).any()
                    for i in range(0, len(above), 3)
                )
            ),
        ]
        # A group of bits above the narrow range belongs to the ranges of the modes that reach it.
        groups = (
            (0, 7, Const(1)),
            (7, config.activation_bits - 1, mode.activation | mode.wide),
            (config.activation_bits - 1, config.residual_bits - 1, mode.wide),
            (config.residual_bits - 1, 16, Const(0)),
        )
        outside: Value = beyond.any()
        largest: Value = ~negative & ~mode.total
        for low, high, reached in groups:
            bits = flipped[low:high]
            outside = outside | (~reached & bits.any())
            largest = largest & (~reached | bits.all())
        half_next = Signal(reset_less=True)
        is_largest = Signal(reset_less=True)
        is_outside = Signal(reset_less=True)
        m.d.sync += [
            half_next.eq(half & ~mode.total),
            is_largest.eq(largest),
            is_outside.eq(outside & ~mode.total),
        ]
        # A flip-flop that is set must start as 1.
        value = Signal(16, init=(1 << (config.residual_bits - 1)) - 1, reset_less=True)
        for number, (low, high, reached) in enumerate(groups):
            if low == high:
                continue
            hidden = ~(reached | mode.total)
            shown = cleared(m, flipped[low:high], hidden, f"flipped_{number}")
            limit = Signal(name=f"limit_{number}", reset_less=True)
            m.d.sync += limit.eq(outside & ~mode.total & reached)
            with m.If(limit):
                m.d.sync += value[low:high].eq(-1)
            with m.Else():
                m.d.sync += value[low:high].eq(shown)
        carry = Signal(reset_less=True)
        m.d.sync += carry.eq(half_next & ~is_outside & ~is_largest)
        return value, carry, delayed(m, negative, 2, "negative")

    def _output(self, m: Module, code: Signal) -> None:
        """The code limited to residual_bits or the activated byte; the upper byte a cycle later, so
        that it can be a copy of the lower one."""
        bits, mode = self.config.residual_bits, self.mode
        waiting = delayed(m, code, self.activation_latency - 1, "code")
        top = waiting[bits - 1 :]
        plain = cleared(m, waiting[:8], mode.activation, "plain")
        upper = cleared(m, waiting[8:16], ~mode.wide, "upper_part")
        outside = cleared(m, top.any() & ~top.all() & ~mode.total, ~mode.wide, "outside")
        sign = delayed(m, waiting[-1], 1, "sign")

        def limited(value: Value, first: int) -> Value:
            """The byte from bit `first` on; a limit is the sign above residual_bits - 1."""
            below = max(0, min(8, bits - 1 - first))
            limit = Cat((~sign).replicate(below), sign.replicate(8 - below))
            return Mux(outside, limit, value)

        byte = limited(plain, 0) | self.activated
        low = Signal(8, reset_less=True)
        copy = cleared(m, byte, mode.wide, "copy")
        m.d.sync += low.eq(byte)
        upper, outside, sign = (
            delayed(m, upper, 1, "upper_late"),
            delayed(m, outside, 1, "outside_late"),
            delayed(m, sign, 1, "sign_late"),
        )
        m.d.sync += self.output.eq(Cat(low, limited(upper, 8) | copy))
