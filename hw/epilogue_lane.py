"""One lane of the epilogue's arithmetic: bias, addend, scale, rounding, saturation, residual."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
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
        waiting = self.residual_time - self._scaled_time
        value = _delay(m, value, waiting, "value")
        carry = _delay(m, carry, waiting, "carry")

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
        """(16 bits of the shifted product, the bit below, whether the 16 bits hold it, sign).

        Two steps, by 8 and by 4 bits, share what a choice of one in four would repeat.
        """
        value = Signal(16, reset_less=True, name="shifted")
        half = Signal(reset_less=True)
        fits = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        sign = product[-1]

        def signs(bits: Value) -> Value:
            return Mux(sign, bits.all(), ~bits.any())

        least, small, large, most = SCALE_SHIFTS
        step = small - least
        coarse = Signal(17 + step)
        fine = Signal(17)
        m.d.comb += [
            coarse.eq(Mux(selector[1], product[large - 1 :], product[least - 1 :])),
            fine.eq(Mux(selector[0], coarse[step:], coarse)),
        ]
        m.d.sync += [
            half.eq(fine[0]),
            value.eq(fine[1:]),
            negative.eq(sign),
            fits.eq(
                signs(product[most + 15 : -1])
                & (selector[1] | signs(product[small + 15 : most + 15]))
                & (selector[0] | signs(coarse[16 : 16 + step]))
            ),
        ]
        return value, half, fits, negative

    def _saturate(
        self, m: Module, value: Value, half: Value, fits: Value, negative: Value
    ) -> tuple[Value, Value]:
        """(the value limited to `bits`, the rounding still to be added)."""
        saturated = Signal(16, reset_less=True)
        carry = Signal(reset_less=True)
        config = self.config
        # A group of bits above the narrow range belongs to the ranges of the modes that reach it.
        groups = (
            (0, 7, Const(1)),
            (7, config.activation_bits - 1, self.activation | self.wide),
            (config.activation_bits - 1, config.residual_bits - 1, self.wide),
            (config.residual_bits - 1, 16, Const(0)),
        )
        within = fits
        largest = ~negative
        limit = []
        for low, high, reached in groups:
            bits = value[low:high]
            within = within & (reached | Mux(negative, bits.all(), ~bits.any()))
            largest = largest & (~reached | bits.all())
            limit.append((reached ^ negative).replicate(high - low))
        m.d.sync += [
            saturated.eq(Mux(within, value, Cat(limit))),
            carry.eq(half & within & ~largest),
        ]
        return saturated, carry


def _delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    for _ in range(cycles):
        delayed = Signal.like(value, name=f"{name}_delayed", reset_less=True)
        m.d.sync += delayed.eq(value)
        value = delayed
    return value
