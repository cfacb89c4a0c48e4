"""The lanes of the norm unit up to its gains: a row's sums, and normalized codes."""

from amaranth import Cat, Module, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.vector_constants import (
    CONSTANT_BITS,
    RESULT_SHIFT,
    squares_shape,
    total_shape,
)
from gateformer.hw.vector_gain import CODE
from gateformer.spec.config import AcceleratorConfig

_LIMB = 17
"""Bits of an operand's low parts: unsigned, they fit the 18 signed bits of a multiplier."""


class RowSums(Component):
    """The sum of a row's counted codes and that of their squares.

    A group of codes comes with each `valid`, the row's last one with `row_end` too. `done` is 1 for
    the cycle after which `total` and `squares` hold the row's sums, until the next row is done.
    `start` forgets an unfinished row.
    """

    start: Signal
    valid: Signal
    row_end: Signal
    group: Signal
    counted: Signal
    done: Signal
    total: Signal
    squares: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        lanes = config.norm_lanes
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "row_end": In(1),
                "group": In(16 * lanes),
                "counted": In(lanes),
                "done": Out(1),
                "total": Out(total_shape(config)),
                "squares": Out(squares_shape(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.norm_lanes
        codes = []
        squares = []
        for lane in range(lanes):
            code = Signal(CODE, name=f"code_{lane}", reset_less=True)
            m.d.sync += code.eq(self.group.word_select(lane, 16))
            with m.If(~self.counted[lane]):
                m.d.sync += code.eq(0)
            square = Multiplier(CODE, CODE, self.config.family)
            m.submodules[f"square_{lane}"] = square
            m.d.comb += [square.a.eq(code), square.b.eq(code)]
            codes.append(code)
            squares.append(square.p[:31])

        # After `valid`: 1 codes, 2 their sum, 3 the squares, 4 their sum.
        flags: Value = Cat(self.valid & self.row_end, self.valid)
        stages = []
        for stage in range(4):
            following = Signal(2, name=f"flags_{stage + 1}")
            m.d.sync += following.eq(flags)
            stages.append(following)
            flags = following
        growth = lanes.bit_length() - 1
        code_sum = Signal(Shape(16 + growth, signed=True), reset_less=True)
        square_sum = Signal(31 + growth, reset_less=True)
        m.d.sync += [code_sum.eq(sum(codes)), square_sum.eq(sum(squares))]
        for name, addend, result, (row_end, valid) in (
            ("total", code_sum, self.total, stages[1]),
            ("squares", square_sum, self.squares, stages[3]),
        ):
            partial = Signal(result.shape(), name=f"partial_{name}", reset_less=True)
            with m.If(valid):
                m.d.sync += partial.eq(partial + addend)
            with m.If(row_end):
                m.d.sync += result.eq(partial + addend)
            with m.If(row_end | self.start):
                m.d.sync += partial.eq(0)
        m.d.comb += self.done.eq(stages[3][0])
        return m


class NormalizeLane(Component):
    """normalized = (factor * code + offset) >> RESULT_SHIFT, modulo 2**16; see RowConstants.

    `normalized` follows `code` and `factor` LATENCY cycles later, `offset` OFFSET_DELAY; a new code
    every cycle. The result fits 16 bits: with C codes it is below 2**10 * sqrt(C), a few parts in
    10**5 more for the root's error, and C is at most 1024. So saturation never acts.
    """

    OFFSET_DELAY = 2
    LATENCY = 4

    code: Signal
    factor: Signal
    offset: Signal
    normalized: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "code": In(CODE),
                "factor": In(CONSTANT_BITS),
                "offset": In(CONSTANT_BITS),
                "normalized": Out(CODE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = []
        for i in range(0, CONSTANT_BITS, _LIMB):
            limb = self.factor[i : i + _LIMB]
            multiplier = Multiplier(CODE, Shape(len(limb)), self.config.family)
            m.submodules[f"product_{i // _LIMB}"] = multiplier
            m.d.comb += [multiplier.a.eq(self.code), multiplier.b.eq(limb)]
            products.append(multiplier.p)
        low, middle, high = products
        bits = CONSTANT_BITS - _LIMB
        lower = Signal(CONSTANT_BITS, reset_less=True)
        upper = Signal(bits, reset_less=True)
        both = Signal(bits)
        m.d.sync += [
            lower.eq(self.offset + low),
            upper.eq(Cat(middle[:_LIMB], (middle >> _LIMB) + high)),
            self.normalized.eq(both[RESULT_SHIFT - _LIMB :]),
        ]
        m.d.comb += both.eq((lower >> _LIMB) + upper)
        return m
