"""One lane of the epilogue's arithmetic: bias, addend, scale, rounding, saturation, residual."""

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import accumulator_shape
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.arithmetic import SCALE_SHIFTS
from gateformer.spec.config import AcceleratorConfig

RECORD = data.StructLayout({"bias": signed(32), "multiplier": 16, "selector": 2})
"""The bits of a scale record that mean something."""
_LOW = 17
"""Bits of the total that the low product takes: the most that a MULT18X18D holds unsigned."""
_PRODUCT = 48


def all_equal(bits: Value) -> Value:
    """Whether the bits are all 0 or all 1."""
    return bits.all() | ~bits.any()


def _saturation(bits: int, width: int, negative: Value) -> Value:
    """The limit of a signed integer of `bits` bits, sign-extended to `width`."""
    return Cat((~negative).replicate(bits - 1), negative.replicate(width - bits + 1))


class ScalingLane(Component):
    """A new output every cycle. Times are cycles after `sum` and `record`.

    addend: at ADDEND_TIME, 0 when there is none; total = wrap32(sum + bias + addend) at TOTAL_TIME.
    residual: at residual_time, 0 when there is none. code = saturate(scale(total), bits) + residual
    at code_time, which is the activation's input; result = saturate(code, residual_bits) at
    result_time. `bits` is activation_bits while `activation`, else residual_bits while `wide`, else
    8; both flags stay while outputs are under way.

    Rounding costs no adder: its bit is the carry into the residual's sum, left out where the
    value is saturated or already the largest.
    """

    ADDEND_TIME = 1
    TOTAL_TIME = 2

    sum: Signal
    record: View
    addend: Signal
    residual: Signal
    activation: Signal
    wide: Signal
    total: Signal
    code: Signal
    result: Signal

    def __init__(self, config: AcceleratorConfig, *, residual_time: int = 0) -> None:
        """residual_time: when the residual is wanted; at least the time the scaling takes."""
        self.config = config
        self._scaled_time = self.TOTAL_TIME + Multiplier.LATENCY + 3
        self.residual_time = max(residual_time, self._scaled_time)
        self.code_time = self.residual_time + 1
        self.result_time = self.code_time + 1
        super().__init__(
            {
                "sum": In(accumulator_shape(config)),
                "record": In(RECORD),
                "addend": In(signed(32)),
                "residual": In(signed(16)),
                "activation": In(1),
                "wide": In(1),
                "total": Out(signed(32)),
                "code": Out(signed(17)),
                "result": Out(signed(16)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        biased = Signal(signed(32), reset_less=True)
        total = Signal(signed(32), reset_less=True)
        m.d.sync += [biased.eq(self.sum + self.record.bias), total.eq(biased + self.addend)]
        m.d.comb += self.total.eq(total)

        multiplier = _delay(m, self.record.multiplier, self.TOTAL_TIME, "multiplier")
        time = self.TOTAL_TIME + Multiplier.LATENCY + 1
        selector = _delay(m, self.record.selector, time, "selector")

        family = self.config.family
        m.submodules.low = low = Multiplier(unsigned(_LOW), unsigned(16), family)
        m.submodules.high = high = Multiplier(signed(32 - _LOW), unsigned(16), family)
        m.d.comb += [
            low.a.eq(total[:_LOW]),
            low.b.eq(multiplier),
            high.a.eq(total[_LOW:].as_signed()),
            high.b.eq(multiplier),
        ]
        upper = Signal(signed(_PRODUCT - _LOW), reset_less=True)
        lower = Signal(_LOW, reset_less=True)
        m.d.sync += [upper.eq(high.p + low.p[_LOW:]), lower.eq(low.p)]
        product = Cat(lower, upper)

        value, carry = self._saturate(m, *self._shift(m, product, selector))
        for _ in range(self.residual_time - self._scaled_time):
            value, carry = _delay(m, value, 1, "value"), _delay(m, carry, 1, "carry")

        code = Signal(signed(17), reset_less=True)
        result = Signal(signed(16), reset_less=True)
        m.d.sync += code.eq(value.as_signed() + self.residual + carry)
        m.d.comb += self.code.eq(code)
        bits = self.config.residual_bits
        m.d.sync += result.eq(
            Mux(
                all_equal(code[bits - 1 :]),
                code[:16],
                _saturation(bits, 16, code[-1]),
            ).as_signed()
        )
        m.d.comb += self.result.eq(result)
        return m

    def _shift(self, m: Module, product: Value, selector: Value) -> tuple[Value, ...]:
        """(16 bits of the shifted product, the bit below, whether the 16 bits hold it, sign)."""
        value = Signal(16, reset_less=True, name="shifted")
        half = Signal(reset_less=True)
        fits = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        sign = product[-1]
        m.d.sync += negative.eq(sign)
        within = all_equal(product[SCALE_SHIFTS[-1] + 15 :])
        fitting = []
        for number in reversed(range(len(SCALE_SHIFTS))):
            first = SCALE_SHIFTS[number] + 15
            if number + 1 < len(SCALE_SHIFTS):
                group = product[first : SCALE_SHIFTS[number + 1] + 15]
                within = within & Mux(sign, group.all(), ~group.any())
            fitting.insert(0, within)
        with m.Switch(selector):
            for number, shift in enumerate(SCALE_SHIFTS):
                with m.Case(number):
                    m.d.sync += [
                        value.eq(product[shift : shift + 16]),
                        half.eq(product[shift - 1]),
                        fits.eq(fitting[number]),
                    ]
        return value, half, fits, negative

    def _saturate(
        self, m: Module, value: Value, half: Value, fits: Value, negative: Value
    ) -> tuple[Signal, Signal]:
        """(the value limited to `bits`, the rounding still to be added)."""
        saturated = Signal(16, reset_less=True)
        carry = Signal(reset_less=True)
        config = self.config

        def limit(bits: int) -> None:
            within = fits & all_equal(value[bits - 1 :])
            largest = value[: bits - 1].all() & ~negative
            m.d.sync += [
                saturated.eq(Mux(within, value, _saturation(bits, 16, negative))),
                carry.eq(half & within & ~largest),
            ]

        with m.If(self.activation):
            limit(config.activation_bits)
        with m.Elif(self.wide):
            limit(config.residual_bits)
        with m.Else():
            limit(8)
        return saturated, carry


def _delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    for _ in range(cycles):
        delayed = Signal.like(value, name=f"{name}_delayed", reset_less=True)
        m.d.sync += delayed.eq(value)
        value = delayed
    return value
