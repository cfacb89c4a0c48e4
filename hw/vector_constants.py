"""What is constant in a normalized row: from its two sums to a factor and an offset."""

from typing import Literal

from amaranth import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.primitives.rom import Rom
from gateformer.spec.arithmetic import NORM_FRACTION, RSQRT_INDEX_BITS, rsqrt_table
from gateformer.spec.config import AcceleratorConfig

RESULT_SHIFT = 28
"""Right shift from factor * code + offset to a normalized value."""
CONSTANT_BITS = 16 + RESULT_SHIFT
"""Bits of factor and offset; what is above them never reaches the 16 bits of a result."""
_GAP = 3
"""Cycles in which the streams run empty before a phase; one more while the table is read."""
_WINDOW = 16
_LOWEST_PLACE = 16 - NORM_FRACTION - RESULT_SHIFT
"""Place of R's first bit for a variance below 4; each further factor of 4 adds 1."""
_EARLY_PAIRS = _GAP // 2 + 3
"""Pairs of bits that pass before the variance's first pair is in the window."""


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


class SerialProduct(Component):
    """`product` gives the bits of the operand times (the bits of `bit`), lowest first, LATENCY
    cycles later. The operand is `a`, or `b` with `use_b`, which stays during a product.

    One bit of the factor comes in a cycle: to give the product of numbers, its sign bit goes on as
    long as product bits are wanted. The operand is read while `bit` is 1. After `clear` = 1, with
    `bit` = 0 for two cycles, a new product may begin.
    """

    LATENCY = 2

    a: Signal
    b: Signal
    use_b: Signal
    bit: Signal
    clear: Signal
    product: Signal

    def __init__(
        self, a_shape: Shape, b_shape: Shape, family: Literal["generic", "ecp5", "ice40"]
    ) -> None:
        self.family = family
        super().__init__(
            {
                "a": In(a_shape),
                "b": In(b_shape),
                "use_b": In(1),
                "bit": In(1),
                "clear": In(1),
                "product": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal.like(self.a, reset_less=True)
        b = Signal.like(self.b, reset_less=True)
        operand = Mux(self.use_b, b, a)
        partial = Signal(operand.shape(), reset_less=True)
        wide = Shape(len(operand) + 1, signed=operand.shape().signed)
        if self.family == "ecp5":
            total = mux_add(m, partial, self.use_b, b, a, wide, name="total", family=self.family)
            m.d.sync += [a.eq(Mux(self.bit, self.a, 0)), b.eq(Mux(self.bit, self.b, 0))]
        else:
            # The gates and the register behind them share cells.
            chosen = Signal(operand.shape(), reset_less=True)
            total = Signal(wide)
            m.d.comb += total.eq(partial + chosen)
            m.d.sync += chosen.eq(Mux(self.bit, Mux(self.use_b, self.b, self.a), 0))
        m.d.sync += [partial.eq(total >> 1), self.product.eq(total[0])]
        with m.If(self.clear):
            m.d.sync += partial.eq(0)
        return m


class RowConstants(Component):
    """The constants of spec.arithmetic.normalize_row for one row, a bit a cycle.

    With S = `total`, Q = `squares`, C = `count`, (r, e) = rsqrt(C * Q - S**2 + epsilon), s = e + 6
    and f = s mod 4, the normalized value of a code x is

        (`factor` * x + `offset`) >> RESULT_SHIFT, modulo 2**16, with
        R = (r >> f) << (RESULT_SHIFT - s + f), factor = C * R,
        offset = 2**(RESULT_SHIFT - 1) - S * R, both modulo 2**CONSTANT_BITS:

    the shift of the row is in its constants, so that the lanes need none. `epsilon` is asked for
    bit by bit: `epsilon_bit` is its bit `position`, two cycles later.

    `start` is heeded while `busy` is 0; the operands must stay until `busy` is 0 again, and the
    results stand until the next start. Takes `latency` cycles. `turn_factor` and `turn_offset`
    rotate a result to the right by a bit.

    Two serial multipliers do all of it, lowest bits first. First C times Q and S times S, whose
    difference runs through a window of 16 bits: with each pair of bits that is not 0, the window
    holds a new mantissa, the last of which counts, so nothing is shifted to normalize. Then the
    Newton step, the table's r0 going through (m * ((r0 * r0) >> 16)) >> 14 and
    3 * 2**16 - that, times r0, each product's bits feeding the next product. Then C and S times
    R, whose bits begin where the shift says.
    """

    start: Signal
    total: Signal
    squares: Signal
    count: Signal
    position: Signal
    epsilon_bit: Signal
    busy: Signal
    turn_factor: Signal
    turn_offset: Signal
    factor: Signal
    offset: Signal

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
                "position": Out(5),
                "epsilon_bit": In(1),
                "busy": Out(1),
                "turn_factor": In(1),
                "turn_offset": In(1),
                "factor": Out(CONSTANT_BITS),
                "offset": Out(CONSTANT_BITS),
            }
        )
        # A stream's bit i is chosen at time i, is at a product's output at time i + 4, and in the
        # window at time i + 5; a bit that is not chosen but comes from a product is a cycle
        # faster. The Newton step's second stream begins when bit 16 of the first is out, its third
        # when bit 14 of the second is, and r is that one's bits 17 to 32.
        self.second_at = 16 + 4
        self.third_at = self.second_at + 14 + 3
        self.root_at = self.third_at + 17 + 3
        self.ends = {
            "VARIANCE": self.variance_bits + 4,
            "NEWTON": self.root_at + 15,
            "CONSTANTS": CONSTANT_BITS + 3,
        }

    @property
    def latency(self) -> int:
        """Cycles from `start` to the end of `busy`."""
        return sum(self.ends.values()) + len(self.ends) * (1 + _GAP) + 1

    @property
    def sums_cycles(self) -> int:
        """Cycles from `start` for which `squares` and `epsilon_bit` are read."""
        return self.ends["VARIANCE"] + _GAP + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        in_phase = {name: Signal(name=f"in_{name.lower()}") for name in self.ends}
        is_variance, is_newton, is_constants = in_phase.values()
        # Negative in the gap before a phase, in which the streams run empty. `coming` is a cycle
        # ahead.
        time = Signal(8, reset_less=True)
        coming = Signal(8, reset_less=True)
        flowing = ~time[-1]
        ends = Signal()
        m.d.sync += ends.eq(0)
        for name, phase in in_phase.items():
            with m.If(phase):
                m.d.sync += ends.eq(time == self.ends[name] - 1)
        m.d.sync += [coming.eq(coming + 1), time.eq(coming)]
        with m.If(ends | ~self.busy):
            m.d.sync += coming.eq(Mux(is_variance, -_GAP, 1 - _GAP))
            m.d.sync += time.eq(Mux(is_variance, -_GAP - 1, -_GAP))
        mantissa = Signal(16, reset_less=True)
        root = Signal(16, reset_less=True)

        family = self.config.family
        m.submodules.first = first = SerialProduct(self.count.shape(), root.shape(), family)
        m.submodules.second = second = SerialProduct(self.total.shape(), mantissa.shape(), family)
        m.d.comb += [
            first.a.eq(self.count),
            first.b.eq(root),
            first.use_b.eq(is_newton),
            second.a.eq(self.total),
            second.b.eq(mantissa),
            second.use_b.eq(is_newton),
            first.clear.eq(~flowing),
            second.clear.eq(~flowing),
        ]

        # The place of R's first bit: it moves by one for each pair of bits of the variance. Bit i
        # of r has its turn in the cycle after the place is i; the bits below the first place are
        # cut.
        place = Signal(6, reset_less=True)
        first_place = Signal(6, reset_less=True)
        cut = (place[2:4] == 0) & (place[:2] < first_place[:2])
        with m.If(is_variance):
            m.d.sync += place.eq(place + time[0])
        with m.Elif(~coming[-1]):
            m.d.sync += place.eq(place + 1)
        with m.Else():
            m.d.sync += place.eq(first_place)

        # Newton: the second stream takes bits 16 to 31 of the first product, the third
        # 3 * 2**16 - t, t being the second product from bit 14 on.
        middle = Signal(reset_less=True)
        late = Signal(reset_less=True)
        top = Signal(reset_less=True)
        rooting = Signal(reset_less=True)
        borrow = Signal(reset_less=True)
        rest = Signal(2)
        m.d.comb += rest.eq(top - second.product - borrow)
        m.d.sync += borrow.eq(rest[1])
        for flag, begin, end in (
            (middle, self.second_at, self.second_at + 16),
            (late, self.third_at, None),
            (rooting, self.root_at, None),
            (top, self.third_at + 16, self.third_at + 18),
        ):
            with m.If(time == begin - 1):
                m.d.sync += flag.eq(1)
            if end is not None:
                with m.If(time == end - 1):
                    m.d.sync += flag.eq(0)
            with m.If(~is_newton):
                m.d.sync += flag.eq(0)
        with m.If(~late):
            m.d.sync += borrow.eq(0)

        # What the time chooses, and a cycle later what goes to the products. A bit of a number is
        # chosen in steps, each with a register behind it: its two lowest places first.
        m.d.comb += self.position.eq(time)
        sums = []
        for name, number in (("squares", self.squares), ("total", self.total)):
            wide = Signal(Shape(64, signed=number.shape().signed), name=f"wide_{name}")
            m.d.comb += wide.eq(number)
            fours = Signal(16, name=f"{name}_fours", reset_less=True)
            sixteens = Signal(4, name=f"{name}_sixteens", reset_less=True)
            choice = Signal(name=f"{name}_choice", reset_less=True)
            m.d.sync += [
                fours.eq(_every_fourth(wide, (coming + 1)[:2])),
                sixteens.eq(_every_fourth(fours, coming[2:4])),
                choice.eq(sixteens.bit_select(time[4:6], 1) & is_variance & flowing),
            ]
            sums.append(choice)
        index = Signal(4)
        root_fours = Signal(4, reset_less=True)
        root_four = Signal(2, reset_less=True)
        root_turn = Signal(reset_less=True)
        root_choice = Signal(reset_less=True)
        m.d.comb += index.eq(Mux(is_newton, coming, place))
        m.d.sync += [
            root_fours.eq(_every_fourth(root, index[:2])),
            root_four.eq(index[2:]),
            root_turn.eq(is_constants & ~coming[-1] & (place[4:] == 0) & ~cut),
            root_choice.eq(root_fours.bit_select(root_four, 1) & root_turn),
        ]
        with m.If(is_newton):
            m.d.sync += root_turn.eq(coming[4:] == 0)
        m.d.sync += [
            first.bit.eq(sums[0] | root_choice | (late & rest[0])),
            second.bit.eq(sums[1] | (root_choice & is_constants) | (middle & first.product)),
        ]

        # first - second + addend, with a carry of 0 to 2 that starts at 1.
        addend = Signal(SerialProduct.LATENCY)
        carry = Signal(2)
        total_bits = Signal(3)
        epsilon_turn = Signal(2)
        half_turn = Signal()
        m.d.sync += [
            epsilon_turn.eq(Cat(is_variance & flowing & ~time[5], epsilon_turn)),
            half_turn.eq(is_constants & (time == RESULT_SHIFT)),
            addend.eq(Cat((self.epsilon_bit & epsilon_turn[-1]) | half_turn, addend)),
        ]
        m.d.comb += total_bits.eq(
            (first.product & is_variance) + ~second.product[0] + addend[-1] + carry
        )
        m.d.sync += carry.eq(total_bits[1:])

        window = self.offset[-_WINDOW:]
        with m.If(flowing & ~is_newton):
            m.d.sync += self.offset.eq(Cat(self.offset[1:], total_bits[0]))
        with m.If(is_constants):
            m.d.sync += self.factor.eq(Cat(self.factor[1:], first.product))
        for result, turn in ((self.factor, self.turn_factor), (self.offset, self.turn_offset)):
            with m.If(turn):
                m.d.sync += result.eq(result.rotate_right(1))
        with m.If(is_variance & flowing & ~time[0] & window[-2:].any()):
            m.d.sync += [mantissa.eq(window), first_place.eq(place)]

        m.submodules.table = table = Rom([int(entry) for entry in rsqrt_table()], family=family)
        m.d.comb += table.address.eq(mantissa[-RSQRT_INDEX_BITS:])
        first_root = Signal(16, reset_less=True)
        m.d.sync += first_root.eq(table.data)
        with m.If(is_newton & ~flowing):
            m.d.sync += root.eq(first_root)
        with m.Elif(is_newton & rooting):
            m.d.sync += root.eq(Cat(root[1:], first.product))

        with m.If(~flowing):
            m.d.sync += carry.eq(1)
        begun = Signal()
        m.d.sync += begun.eq(self.start & ~self.busy)
        with m.If(self.start & ~self.busy):
            m.d.sync += [self.busy.eq(1), is_variance.eq(1)]
        with m.If(begun):
            m.d.sync += [
                self.offset.eq(0),
                # A variance of 0 counts as 1.
                mantissa.eq(1 << 14),
                first_place.eq(_LOWEST_PLACE),
                place.eq(_LOWEST_PLACE - _EARLY_PAIRS),
            ]
        with m.If(ends):
            m.d.sync += [
                is_variance.eq(0),
                is_newton.eq(is_variance),
                is_constants.eq(is_newton),
                self.busy.eq(~is_constants),
            ]
        return m


def _every_fourth(bits: Value, first: Value) -> Value:
    """The bits `first`, `first` + 4, and so on."""
    return Cat(bits[i : i + 4].bit_select(first, 1) for i in range(0, len(bits), 4))
