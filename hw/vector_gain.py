"""Gain and bias of one channel, one output of the norm."""

from typing import Literal

from amaranth import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.arithmetic import NORM_SHIFTS

CODE = Shape(16, signed=True)
_LOW = 17
"""Bits of a value's low part: unsigned, it fits the 18 signed bits of a multiplier."""


class GainLane(Component):
    """output = spec.arithmetic.gain(normalized, gain, bias, NORM_SHIFTS[shift], bits).

    The lane keeps `depth` biases, written with `fill`, each half on its own. `gain` comes with
    `normalized`, `address`, that of the bias, ADDRESS_LEAD cycles before; `output` follows them
    LATENCY cycles later. A new value every cycle. `shift` stays.

    Two multipliers take the place of a shifter: times a power of two, the result is always at the
    same bits.
    """

    ADDRESS_LEAD = 2
    LATENCY = 8

    fill: Signal
    fill_address: Signal
    fill_data: Signal
    address: Signal
    normalized: Signal
    gain: Signal
    shift: Signal
    output: Signal

    def __init__(
        self, *, depth: int, bits: int, family: Literal["generic", "ecp5", "ice40"]
    ) -> None:
        self.depth = depth
        self.bits = bits
        self.family = family
        super().__init__(
            {
                "fill": In(2),
                "fill_address": In(range(depth)),
                "fill_data": In(32),
                "address": In(range(depth)),
                "normalized": In(CODE),
                "gain": In(CODE),
                "shift": In(2),
                "output": Out(Shape(bits, signed=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address_1 = Signal.like(self.address, reset_less=True)
        address_2 = Signal.like(self.address, reset_less=True)
        m.d.sync += [address_1.eq(self.address), address_2.eq(address_1)]
        # The bias is there with the product. Filling and normalizing are different instructions:
        # never in one cycle.
        m.submodules.biases = biases = WordRam(depth=self.depth, width_bytes=4, family=self.family)
        m.d.sync += [
            biases.write_mask.eq(Cat(enable.replicate(2) for enable in self.fill)),
            biases.write_address.eq(self.fill_address),
            biases.write_data.eq(self.fill_data),
        ]
        m.d.comb += biases.read_address.eq(address_2)
        m.submodules.multiplier = multiplier = Multiplier(CODE, CODE, self.family)
        m.d.comb += [multiplier.a.eq(self.normalized), multiplier.b.eq(self.gain)]
        value = Signal(Shape(33, signed=True), reset_less=True)
        m.d.sync += value.eq(multiplier.p + biases.read_data.as_signed())

        # What is above the shift, and the bit below it, which rounds.
        last = NORM_SHIFTS[-1]
        power = Signal(last - NORM_SHIFTS[0] + 1, reset_less=True)
        m.d.sync += power.eq(Cat(*(self._is_power(bit) for bit in range(len(power)))))
        m.submodules.low = low = Multiplier(Shape(_LOW), power.shape(), self.family)
        m.submodules.high = high = Multiplier(
            value[_LOW:].as_signed().shape(), power.shape(), self.family
        )
        m.d.comb += [
            low.a.eq(value[:_LOW]),
            low.b.eq(power),
            high.a.eq(value[_LOW:].as_signed()),
            high.b.eq(power),
        ]
        # No bit is 1 in both parts.
        width = self.bits + 1
        low_part = low.p[last - 1 :]
        high_part = high.p[last - 1 - _LOW :]
        rest = Cat(low_part | high_part[: len(low_part)], high_part[len(low_part) :])[width - 1 :]
        sum_ = Signal(self.bits, reset_less=True)
        above = Signal.like(rest, name="above", reset_less=True)
        rounded = Signal(self.bits, reset_less=True)
        overflow = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        # The carry in that rounds is a pair of ones below.
        total = Cat(1, low_part[:width]) + Cat(1, high_part[:width])
        m.d.sync += [
            sum_.eq(total[2:]),
            above.eq(rest),
            rounded.eq(sum_),
            overflow.eq(above.any() & ~above.all()),
            negative.eq(above[-1]),
        ]
        limit = Cat((~negative).replicate(self.bits - 1), negative)
        beyond = overflow | (~negative & rounded[-1])
        m.d.sync += self.output.eq(Mux(beyond, limit, rounded))
        return m

    def _is_power(self, bit: int) -> Value:
        """Whether 1 << bit moves a value with this shift up to the place of the largest shift."""
        power = NORM_SHIFTS[-1] - bit
        return self.shift == NORM_SHIFTS.index(power) if power in NORM_SHIFTS else Const(0, 1)
