"""Sums and outputs of the norm without multipliers, one bit of a factor in a cycle."""

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.vector_constants import (
    CONSTANT_BITS,
    SerialProduct,
    squares_shape,
    total_shape,
)
from gateformer.hw.vector_gain import CODE
from gateformer.hw.vector_ports import SERIAL_PHASE, SERIAL_SUM, group_bytes
from gateformer.spec.arithmetic import NORM_SHIFTS
from gateformer.spec.config import AcceleratorConfig

_NO_BITS = Shape(1)
"""Of a product's second operand where there is none."""


class SerialSums(Component):
    """The sum of a row's counted codes and that of their squares, in registers that go round.

    A group of codes comes with each `valid` and stays; each takes `interval` cycles. `done` is 1
    for the cycle after which those of a group with `row_end` are in `total` and `squares`. `clear`
    makes them 0.
    """

    valid: Signal
    row_end: Signal
    group: Signal
    counted: Signal
    clear: Signal
    done: Signal
    total: Signal
    squares: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.codes = group_bytes(config) // 2
        super().__init__(
            {
                "valid": In(1),
                "row_end": In(1),
                "group": In(16 * self.codes),
                "counted": In(self.codes),
                "clear": In(1),
                "done": Out(1),
                "total": Out(total_shape(config)),
                "squares": Out(squares_shape(config)),
            }
        )
        self.interval = len(self.squares) + 4
        assert self.interval <= SERIAL_SUM

    def elaborate(self, platform: object) -> Module:
        m = Module()
        number = Signal(range(self.codes), reset_less=True)
        time = Signal(range(self.interval), reset_less=True)
        running = Signal()
        ends = Signal()
        m.d.comb += [
            ends.eq(running & (time == self.interval - 1)),
            self.done.eq(ends & self.row_end & (number == self.codes - 1)),
        ]
        with m.If(self.valid):
            m.d.sync += [running.eq(1), number.eq(0), time.eq(0)]
        with m.Elif(ends):
            m.d.sync += [number.eq(number + 1), time.eq(0)]
            with m.If(number == self.codes - 1):
                m.d.sync += running.eq(0)
        with m.Elif(running):
            m.d.sync += time.eq(time + 1)

        code = Signal(CODE)
        bit = Signal()
        active = Signal()
        product = SerialProduct(CODE, _NO_BITS, self.config.family)
        m.submodules.product = product
        counted = self.counted.bit_select(number, 1)
        m.d.comb += [
            code.eq(self.group.word_select(number, 16)),
            active.eq(running & (time < len(self.squares))),
            bit.eq(active & counted & code.bit_select(_sign_extended(time, 15), 1)),
            product.a.eq(code),
            product.bit.eq(bit),
            product.clear.eq(ends),
        ]
        later = Signal(SerialProduct.LATENCY)
        m.d.sync += later.eq(Cat(active, later))
        for register, addend, enable in (
            (self.total, bit, active & (time < len(self.total))),
            (self.squares, product.product, later[-1]),
        ):
            carry = Signal(name=f"carry_{len(register)}")
            total = Signal(2, name=f"total_{len(register)}")
            m.d.comb += total.eq(register[0] + addend + carry)
            with m.If(enable):
                m.d.sync += [register.eq(Cat(register[1:], total[0])), carry.eq(total[1])]
            with m.Else():
                m.d.sync += carry.eq(0)
            with m.If(self.clear):
                m.d.sync += register.eq(0)
        return m


class SerialLane(Component):
    """The outputs of one code: normalized = (factor * code + offset) >> RESULT_SHIFT, and of that
    the int16 and the int8 output, each as spec.arithmetic.gain does.

    `start` takes a code, which must stay, as all other inputs. Factor and offset are read bit by
    bit: `turn_factor` and `turn_offset` ask for the next bit of each, and after CONSTANT_BITS turns
    they have gone round. `wide` chooses gain and bias of the int16 output, which must be there a
    cycle later. An output is made while `ready`: it stands in the cycle of `done16` or `done8`, the
    last one in that of `done`. Takes SERIAL_PHASE cycles and as many for each output that `write16`
    and `write8` want.
    """

    start: Signal
    ready: Signal
    code: Signal
    factor_bit: Signal
    offset_bit: Signal
    turn_factor: Signal
    turn_offset: Signal
    write8: Signal
    write16: Signal
    shift8: Signal
    shift16: Signal
    wide: Signal
    gain: Signal
    bias: Signal
    done8: Signal
    done16: Signal
    done: Signal
    output: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "ready": In(1),
                "code": In(CODE),
                "factor_bit": In(1),
                "offset_bit": In(1),
                "turn_factor": Out(1),
                "turn_offset": Out(1),
                "write8": In(1),
                "write16": In(1),
                "shift8": In(2),
                "shift16": In(2),
                "wide": Out(1),
                "gain": In(CODE),
                "bias": In(Shape(32, signed=True)),
                "done8": Out(1),
                "done16": Out(1),
                "done": Out(1),
                "output": Out(CODE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        normalizing = Signal()
        narrow = Signal()
        running = normalizing | self.wide | narrow
        # -1 in the cycle in which gain and bias are looked up.
        time = Signal(6)
        ends = Signal()
        over = Signal()
        m.d.comb += [
            over.eq(time == SERIAL_PHASE - 2),
            ends.eq(over & (normalizing | self.ready)),
            self.done16.eq(ends & self.wide),
            self.done8.eq(ends & narrow),
            self.done.eq(self.done8 | (self.done16 & ~self.write8)),
        ]
        with m.If(~running | ends):
            m.d.sync += time.eq(-1)
        with m.Elif(~over):
            m.d.sync += time.eq(time + 1)
        with m.If(ends):
            m.d.sync += [
                normalizing.eq(0),
                self.wide.eq(normalizing & self.write16),
                narrow.eq(self.write8 & (self.wide | (normalizing & ~self.write16))),
            ]
        with m.If(self.start):
            m.d.sync += [normalizing.eq(1), time.eq(-1)]

        normalized = Signal(CODE, reset_less=True)
        active = Signal()
        later = Signal(SerialProduct.LATENCY)
        m.submodules.product = product = SerialProduct(CODE, CODE, self.config.family)
        m.d.comb += [
            active.eq(running & (time < CONSTANT_BITS)),
            product.a.eq(self.code),
            product.b.eq(normalized),
            product.use_b.eq(~normalizing),
            product.bit.eq(
                active
                & Mux(
                    normalizing,
                    self.factor_bit,
                    self.gain.bit_select(_sign_extended(time, 15), 1),
                )
            ),
            product.clear.eq(ends),
            self.turn_factor.eq(active & normalizing),
            self.turn_offset.eq(later[-1] & normalizing),
        ]
        m.d.sync += later.eq(Cat(active, later))

        # The product's bits, the addend's, and half of what is cut off; at most 2 is carried.
        shift = Mux(self.wide, self.shift16, self.shift8)
        least = NORM_SHIFTS[0]
        bias_bits = Signal(SerialProduct.LATENCY)
        half = Signal(SerialProduct.LATENCY)
        carry = Signal(2)
        total = Signal(3)
        m.d.sync += [
            bias_bits.eq(Cat(self.bias.bit_select(_sign_extended(time, 31), 1), bias_bits)),
            half.eq(
                Cat(
                    ~normalizing & (time[:2] == 3) & (time[2:] == least // 4 - 1 + shift),
                    half,
                )
            ),
            carry.eq(Mux(later[-1], total[1:], 0)),
        ]
        m.d.comb += total.eq(
            product.product + Mux(normalizing, self.offset_bit, bias_bits[-1]) + half[-1] + carry
        )
        with m.If(self.turn_offset):
            m.d.sync += normalized.eq(Cat(normalized[1:], total[0]))
        self._saturate(m, total[0], later[-1], half[-1], ends)
        return m

    def _saturate(self, m: Module, bit: Value, valid: Value, half: Value, ends: Value) -> None:
        """Takes the 16 bits behind `half` and limits them to the output's width, which it exceeds
        if the bits from its sign on are not all the same."""
        taken = Signal(5)
        taking = Signal()
        signs = Signal(2)
        rest = Signal(16, reset_less=True)
        sign = Signal(reset_less=True)
        wide_sign = self.config.residual_bits - 1
        with m.If(half):
            m.d.sync += taking.eq(1)
        with m.If(taking & valid):
            m.d.sync += sign.eq(bit)
            with m.If(~taken[-1]):
                m.d.sync += [taken.eq(taken + 1), rest.eq(Cat(rest[1:], bit))]
            with m.If(taken >= Mux(self.wide, wide_sign, 7)):
                m.d.sync += signs.eq(signs | Cat(~bit, bit))
        with m.If(ends):
            m.d.sync += [taken.eq(0), taking.eq(0), signs.eq(0)]
        limit = Cat((~sign).replicate(7), Mux(self.wide, ~sign, sign).replicate(wide_sign - 7))
        limits = Cat(limit, sign.replicate(16 - wide_sign))
        m.d.comb += self.output.eq(Mux(signs.all(), limits, rest))


def _sign_extended(time: Signal, last: int) -> Value:
    """The place of bit `time` of a number whose sign is bit `last`, one less than a power of 2."""
    bits = last.bit_length()
    return time[:bits] | time[bits:].any().replicate(bits)
