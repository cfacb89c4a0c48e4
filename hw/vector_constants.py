"""What is constant in a normalized row: from its two sums to a factor, an offset and a shift."""

from amaranth import Array, Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.rsqrt import Rsqrt
from gateformer.spec.arithmetic import NORM_FRACTION
from gateformer.spec.config import AcceleratorConfig

LIMB = 17
"""Bits of an operand's low part: unsigned, it fits the 18 signed bits of a multiplier."""


def count_bits(config: AcceleratorConfig) -> int:
    return config.norm_length.bit_length()


def _sum_growth(config: AcceleratorConfig) -> int:
    return (config.norm_length - 1).bit_length()


def total_shape(config: AcceleratorConfig) -> Shape:
    """Of a row's sum of int16 codes."""
    return Shape(16 + _sum_growth(config), signed=True)


def squares_shape(config: AcceleratorConfig) -> Shape:
    """Of a row's sum of squares, each at most 2**30."""
    return Shape(31 + _sum_growth(config))


def factor_shape(config: AcceleratorConfig) -> Shape:
    """Of -count * root."""
    return Shape(17 + count_bits(config), signed=True)


def offset_shape(config: AcceleratorConfig) -> Shape:
    """Of total * root, and of count * code * root less that."""
    return Shape(34 + _sum_growth(config), signed=True)


class RowConstants(Component):
    """The constants of spec.arithmetic.normalize_row for one row.

    With S = `total`, Q = `squares`, C = `count`, (r, e) = rsqrt(C * Q - S**2 + epsilon), s = e + 6
    and f = s mod 4, the normalized value of a code x is

        (`offset` - `factor` * x) >> 4 * `shift`,    4 * shift = s - f,
        factor = -C * (r >> f),    offset = half - S * (r >> f),    half = 2**(4 * shift - 1).

    `start` is heeded while `busy` is 0; the operands must stay until `busy` is 0 again, and the
    results stand until the next start. Takes at most `latency` cycles, fewer for larger variances.
    """

    start: Signal
    total: Signal
    squares: Signal
    count: Signal
    epsilon: Signal
    busy: Signal
    factor: Signal
    offset: Signal
    shift: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        # C * Q - S**2 is C**2 times a variance of at most 2**30.
        self.variance_bits = max(2 * _sum_growth(config) + 32, 34)
        super().__init__(
            {
                "start": In(1),
                "total": In(total_shape(config)),
                "squares": In(squares_shape(config)),
                "count": In(count_bits(config)),
                "epsilon": In(32),
                "busy": Out(1),
                "factor": Out(factor_shape(config)),
                "offset": Out(offset_shape(config)),
                "shift": Out(3),
            }
        )

    @property
    def latency(self) -> int:
        """Most cycles from `start` to the end of `busy`."""
        return self.variance_bits // 2 + 37

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.rsqrt = rsqrt = Rsqrt(width=self.variance_bits, family=config.family)
        operand = Shape(LIMB + 1, signed=True)
        m.submodules.multiplier = multiplier = Multiplier(operand, operand, config.family)

        total_low, total_high = self.total[:LIMB], self.total[LIMB:].as_signed()
        squares = [self.squares[i : i + LIMB] for i in range(0, 3 * LIMB, LIMB)]
        negative_count = Signal(Shape(count_bits(config) + 1, signed=True))
        root = Signal(16, reset_less=True)
        half = Signal(1 << 5)
        s = Signal(range(6 + self.variance_bits // 2 + 1))
        m.d.comb += [
            negative_count.eq(-self.count),
            s.eq(rsqrt.exponent + (16 - NORM_FRACTION)),
            self.shift.eq(s >> 2),
        ]
        for shift in range(1, 8):
            m.d.comb += half[4 * shift - 1].eq(self.shift == shift)

        # Horner's scheme over limbs, highest first: each step subtracts a product from the
        # accumulator, which before that may move up by a limb and take in a limb of an addend.
        # Step: operands a and b, and what comes in from below (None: nothing moves).
        a_choices = (negative_count, total_low, total_high)
        b_choices = (*squares, total_low, total_high, root)
        addends = (
            Const(0, LIMB),
            self.epsilon[LIMB:],
            self.epsilon[:LIMB],
            half[LIMB:],
            half[:LIMB],
        )
        count, low, high = range(3)
        square_low, square_middle, square_high, b_low, b_high, b_root = range(6)
        variance = (
            (count, square_high, None),
            (high, b_high, None),
            (count, square_middle, 1),
            (low, b_high, None),
            (low, b_high, None),
            (count, square_low, 2),
            (low, b_low, None),
        )
        constants = (
            (count, b_root, None),
            (high, b_root, 3),
            (low, b_root, 4),
        )
        steps = variance + constants

        step = Signal(range(len(steps)), reset_less=True)
        issue = Signal()
        with m.If(issue):
            m.d.sync += step.eq(step + 1)

        # After the issue of a step: 1 its codes, 2 and 3 the multiplier, 3 the subtraction.
        issued = Signal(3)
        a_code = Signal(range(len(a_choices)), reset_less=True)
        b_code = Signal(range(len(b_choices)), reset_less=True)
        addend_code = Signal(range(len(addends)), reset_less=True)
        is_factor = Signal(3, reset_less=True)
        m.d.sync += [
            issued.eq(Cat(issue, issued)),
            is_factor.eq(Cat(step == len(variance), is_factor)),
        ]
        with m.Switch(step):
            for i, (a, b, addend) in enumerate(steps):
                with m.Case(i):
                    m.d.sync += [a_code.eq(a), b_code.eq(b), addend_code.eq(addend or 0)]
        m.d.comb += [
            multiplier.a.eq(Array(a_choices)[a_code]),
            multiplier.b.eq(Array(b_choices)[b_code]),
        ]
        incoming = Signal(LIMB, reset_less=True)
        addend_1 = Signal.like(addend_code)
        moves = Signal(reset_less=True)
        m.d.sync += [
            addend_1.eq(addend_code),
            incoming.eq(Array(addends)[addend_1]),
            moves.eq(addend_1 != 0),
        ]

        accumulator = Signal(self.variance_bits, reset_less=True)
        base = Signal.like(accumulator)
        m.d.comb += base.eq(Mux(moves, Cat(incoming, accumulator), accumulator))
        with m.If(issued[2] & is_factor[2]):
            m.d.sync += self.factor.eq(multiplier.p)
        with m.Elif(issued[2]):
            m.d.sync += accumulator.eq(base - multiplier.p)
        m.d.comb += [rsqrt.value.eq(accumulator), self.offset.eq(accumulator)]

        cut = Signal(2, reset_less=True)
        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.busy.eq(1), accumulator.eq(0), step.eq(0)]
                m.next = "VARIANCE"
            with m.State("VARIANCE"):
                m.d.comb += issue.eq(1)
                with m.If(step == len(variance) - 1):
                    m.next = "SETTLE"
            with m.State("SETTLE"), m.If(issued == 0):
                m.d.comb += rsqrt.start.eq(1)
                m.next = "ROOT"
            with m.State("ROOT"):
                m.d.sync += [accumulator.eq(0), root.eq(rsqrt.root), cut.eq(s[:2])]
                with m.If(~rsqrt.busy):
                    m.next = "CUT"
            with m.State("CUT"):
                with m.If(cut != 0):
                    m.d.sync += [root.eq(root >> 1), cut.eq(cut - 1)]
                with m.Else():
                    m.next = "CONSTANTS"
            with m.State("CONSTANTS"):
                m.d.comb += issue.eq(1)
                with m.If(step == len(steps) - 1):
                    m.next = "FINISH"
            with m.State("FINISH"), m.If(issued == 0):
                m.d.sync += self.busy.eq(0)
                m.next = "IDLE"
        return m
