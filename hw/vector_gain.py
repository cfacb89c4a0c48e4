"""Gain and bias of one channel, one output of the norm."""

from typing import Literal

from amaranth import Cat, Module, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.arithmetic import NORM_SHIFTS

CODE = Shape(16, signed=True)


class GainLane(Component):
    """output = spec.arithmetic.gain(normalized, gain, bias, NORM_SHIFTS[shift], bits).

    The lane keeps `depth` gains and biases, written with `fill`. `address` is that of the value
    that comes on `normalized` ADDRESS_LEAD cycles later; `output` follows `normalized` LATENCY
    cycles later. A new value every cycle. `shift` stays.
    """

    ADDRESS_LEAD = 2
    LATENCY = 5

    fill: Signal
    fill_address: Signal
    fill_gain: Signal
    fill_bias: Signal
    address: Signal
    normalized: Signal
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
                "fill": In(1),
                "fill_address": In(range(depth)),
                "fill_gain": In(CODE),
                "fill_bias": In(Shape(32, signed=True)),
                "address": In(range(depth)),
                "normalized": In(CODE),
                "shift": In(2),
                "output": Out(Shape(bits, signed=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def table(shape: Shape, data: Value, address: Value, name: str) -> Value:
            # Filling and normalizing are different instructions: never in one cycle.
            memory = Memory(shape=shape, depth=self.depth, init=[], attrs={"no_rw_check": 1})
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.fill),
                write.addr.eq(self.fill_address),
                write.data.eq(data),
                read.addr.eq(address),
            ]
            return read.data

        gain = Signal(CODE, reset_less=True)
        bias = Signal(Shape(32, signed=True), reset_less=True)
        address_1 = Signal.like(self.address, reset_less=True)
        address_2 = Signal.like(self.address, reset_less=True)
        m.submodules.multiplier = multiplier = Multiplier(CODE, CODE, self.family)
        # The gain is there with its value, the bias with their product.
        m.d.sync += [
            gain.eq(table(CODE, self.fill_gain, self.address, "gains")),
            address_1.eq(self.address),
            address_2.eq(address_1),
            bias.eq(table(bias.shape(), self.fill_bias, address_2, "biases")),
        ]
        m.d.comb += [multiplier.a.eq(self.normalized), multiplier.b.eq(gain)]
        value = Signal(Shape(33, signed=True), reset_less=True)
        m.d.sync += value.eq(multiplier.p + bias)

        # Shifted to one bit more than the output and limited so that the rounding of that bit stays
        # within the output: the adder of the rounding is short.
        width = self.bits + 1
        windows = []
        overflows = []
        for shift in NORM_SHIFTS:
            shifted = value >> (shift - 1)
            windows.append(shifted[:width])
            rest = shifted[width - 1 :]
            overflows.append(rest.any() & ~rest.all())
        limited = Signal(Shape(width, signed=True), reset_less=True)
        window = Signal(width)
        overflow = Signal()
        with m.Switch(self.shift):
            for i in range(len(NORM_SHIFTS)):
                with m.Case(i):
                    m.d.comb += [window.eq(windows[i]), overflow.eq(overflows[i])]
        m.d.sync += limited.eq(window)
        negative = value[-1]
        with m.If(overflow | (~negative & window[:-1].all())):
            m.d.sync += limited.eq(Cat(0, (~negative).replicate(self.bits - 1), negative))
        m.d.sync += self.output.eq((limited + 1) >> 1)
        return m
