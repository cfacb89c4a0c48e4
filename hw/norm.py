"""LayerNorm of int16 rows with two outputs."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.vector_constants import (
    LIMB,
    RowConstants,
    factor_shape,
    offset_shape,
    squares_shape,
    total_shape,
)
from gateformer.hw.vector_gain import CODE, GainLane
from gateformer.hw.vector_ports import WordSink, WordSource
from gateformer.hw.vector_row import LaneCounter, RowRing, WordCounter, ring_groups
from gateformer.spec.config import AcceleratorConfig


class RowSums(Component):
    """The sum of a row's counted codes and that of their squares.

    A group of codes comes with each `valid`, the row's last one with `row_end` too. `done` is 1 for
    the cycle after which `total` and `squares` hold the row's sums, until the next row is done.
    """

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
            partial = Signal(result.shape(), name=f"partial_{name}")
            with m.If(valid):
                m.d.sync += partial.eq(partial + addend)
            with m.If(row_end):
                m.d.sync += [result.eq(partial + addend), partial.eq(0)]
        m.d.comb += self.done.eq(stages[3][0])
        return m


class NormalizeLane(Component):
    """normalized = (offset - factor * code) >> 4 * shift, see RowConstants.

    `normalized` follows `code` and `factor` LATENCY cycles later, `offset` OFFSET_DELAY and `shift`
    SHIFT_DELAY cycles; a new code every cycle. The result fits 16 bits: with C codes it is below
    2**10 * sqrt(C), a few parts in 10**5 more for the root's error, and C is at most 1024. So
    saturation never acts.
    """

    OFFSET_DELAY = 3
    SHIFT_DELAY = 4
    LATENCY = 6

    code: Signal
    factor: Signal
    offset: Signal
    shift: Signal
    normalized: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "code": In(CODE),
                "factor": In(factor_shape(config)),
                "offset": In(offset_shape(config)),
                "shift": In(3),
                "normalized": Out(CODE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        high_shape = Shape(len(self.factor) - LIMB, signed=True)
        m.submodules.low = low = Multiplier(CODE, Shape(LIMB), self.config.family)
        m.submodules.high = high = Multiplier(CODE, high_shape, self.config.family)
        product = Signal(self.offset.shape(), reset_less=True)
        difference = Signal(self.offset.shape(), reset_less=True)
        m.d.comb += [
            low.a.eq(self.code),
            low.b.eq(self.factor[:LIMB]),
            high.a.eq(self.code),
            high.b.eq(self.factor[LIMB:]),
        ]
        upper = (low.p >> LIMB) + high.p
        m.d.sync += [
            product.eq(Cat(low.p[:LIMB], upper)),
            difference.eq(self.offset - product),
        ]
        # Shifts by 4 to 28 in two steps, first by 0 or 16.
        shift_low = Signal(2, reset_less=True)
        coarse = Signal(28, reset_less=True)
        m.d.sync += [
            coarse.eq(Mux(self.shift[2], difference >> 16, difference)),
            shift_low.eq(self.shift[:2]),
        ]
        with m.Switch(shift_low):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += self.normalized.eq(coarse[4 * i :][:16])
        return m


class Norm(Component):
    """Rows of int16 codes to int8 (channel 0) and int16 outputs (channel 1).

    Follows spec.arithmetic.normalize_row and gain; the int16 output saturates to residual_bits.
    After `start`, `source` brings `rows` rows of `words` words (both at least 1), each for
    word_bytes / 2 / norm_lanes steps; all other inputs stay until `done`, which is 1 once the last
    group has left for the outputs (their places in the write queue are reserved by then). A row's
    sums are made while its words go to a ring; its outputs follow from there, norm_lanes channels a
    cycle, while the next row comes in. RowConstants.latency plus about 25 cycles bounds the rate of
    short rows.

    With `fill`, each step of `source` is a gain record instead, of the int16 output if `output16`,
    else of the int8 output; `rows` of them count, and `start` comes first.
    """

    start: Signal
    fill: Signal
    output16: Signal
    rows: Signal
    words: Signal
    channels: Signal
    epsilon: Signal
    write8: Signal
    write16: Signal
    shift8: Signal
    shift16: Signal
    done: Signal
    source: Any
    sink: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "fill": In(1),
                "output16": In(1),
                "rows": In(12),
                "words": In(12),
                "channels": In(12),
                "epsilon": In(32),
                "write8": In(1),
                "write16": In(1),
                "shift8": In(2),
                "shift16": In(2),
                "done": Out(1),
                "source": In(WordSource(config)),
                "sink": Out(WordSink(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, source, sink = self.config, self.source, self.sink
        lanes = config.norm_lanes
        word_bytes = config.word_bytes
        steps = word_bytes // 2 // lanes
        groups = config.norm_length // lanes

        m.submodules.ring = ring = RowRing(
            group_bits=16 * lanes, groups=ring_groups(config.norm_length, lanes), steps=steps
        )
        m.submodules.sums = sums = RowSums(config)
        m.submodules.constants = constants = RowConstants(config)
        m.submodules.counter = counter = LaneCounter(lanes=lanes, bits=12)

        # First pass: the sums, and the row's way into the ring.
        group = source.word.word_select(source.step[: (steps - 1).bit_length()], 16 * lanes)
        first_valid = Signal()
        first_end = Signal()
        m.d.comb += [
            first_valid.eq(source.valid & ~self.fill),
            first_end.eq(first_valid & source.last & (source.step == steps - 1)),
            ring.write.eq(first_valid),
            ring.write_data.eq(group),
            sums.valid.eq(first_valid),
            sums.row_end.eq(first_end),
            sums.group.eq(group),
            sums.counted.eq(counter.counted),
            counter.load.eq(self.start | first_end),
            counter.total.eq(self.channels),
            counter.advance.eq(first_valid),
        ]

        # Between the passes: the row's constants. They read the sums until the second pass has
        # taken their results, so only then the last word of the next row is requested.
        owed = Signal()
        summed = Signal()
        ready = Signal()
        load = Signal()
        released = Signal()
        with m.If(sums.done):
            m.d.sync += summed.eq(1)
        with m.If(source.issue_last & ~self.fill):
            m.d.sync += owed.eq(1)
        with m.If(released):
            m.d.sync += owed.eq(0)
        m.d.comb += [
            constants.start.eq(summed),
            constants.total.eq(sums.total),
            constants.squares.eq(sums.squares),
            constants.count.eq(self.channels),
            constants.epsilon.eq(self.epsilon),
            source.allow.eq(self.fill | ring.allow),
            source.allow_last.eq(self.fill | ~owed),
            ring.issue.eq(source.issue & ~self.fill),
        ]
        computing = Signal()
        with m.If(constants.start):
            m.d.sync += [summed.eq(0), computing.eq(1)]
        with m.If(computing & ~constants.busy):
            m.d.sync += [computing.eq(0), ready.eq(1)]
        with m.If(load):
            m.d.sync += ready.eq(0)

        # Second pass: groups leave the ring, each word of outputs having its place in the queue.
        running = Signal()
        step = Signal(range(steps), reset_less=True)
        odd = Signal(reset_less=True)
        m.submodules.second_words = second_words = WordCounter(bits=12)
        word_begin = Signal()
        word_end = Signal()
        row_end = Signal()
        go = Signal()
        rows_left = Signal(12)
        m.d.comb += [
            word_begin.eq(step == 0),
            word_end.eq(step == steps - 1),
            row_end.eq(word_end & second_words.last),
            second_words.load.eq(load),
            second_words.words.eq(self.words),
            second_words.advance.eq(go & word_end),
            go.eq(running & (~word_begin | sink.room)),
            load.eq(ready & (~running | (go & row_end))),
            ring.read.eq(go),
            ring.release.eq(go & word_end),
            self.done.eq(rows_left == 0),
        ]
        if steps == 1:
            # Two channels, one push a cycle: every other cycle makes room for the int8 word.
            pause = Signal()
            m.d.sync += pause.eq(go)
            m.d.comb += go.eq(running & sink.room & ~pause)
        with m.If(go & word_begin):
            m.d.comb += sink.reserve.eq(self.write16 + (self.write8 & ~odd))
        with m.If(go):
            m.d.sync += step.eq(step + 1)
            with m.If(word_end):
                m.d.sync += [step.eq(0), odd.eq(~odd)]
            with m.If(row_end):
                m.d.sync += [running.eq(0), rows_left.eq(rows_left - 1)]
        with m.If(load):
            m.d.sync += [running.eq(1), odd.eq(0)]
        with m.If(self.start & ~self.fill):
            m.d.sync += rows_left.eq(self.rows)

        # From `go` on: 1 ring data, 2 codes, 8 normalized, 13 int16 output, 14 int8 output.
        codes_at = 2
        normalized_at = codes_at + NormalizeLane.LATENCY
        address_at = normalized_at - GainLane.ADDRESS_LEAD
        output16_at = normalized_at + GainLane.LATENCY
        output8_at = output16_at + 1
        flags: list[Signal] = []
        value: Value = Cat(go, go & row_end)
        for stage in range(output8_at):
            flags.append(Signal(2, name=f"flags_{stage + 1}"))
            m.d.sync += flags[-1].eq(value)
            value = flags[-1]

        def valid(stage: int) -> Value:
            return flags[stage - 1][0]

        def end(stage: int) -> Value:
            return flags[stage - 1][1]

        # A row's constants follow its first group, so they change between two rows.
        loads: list[Signal] = []
        value = load
        for stage in range(codes_at + NormalizeLane.SHIFT_DELAY):
            loads.append(Signal(name=f"load_{stage + 1}"))
            m.d.sync += loads[-1].eq(value)
            value = loads[-1]
        factor = Signal.like(constants.factor, reset_less=True)
        offset = Signal.like(constants.offset, reset_less=True)
        shift = Signal.like(constants.shift, reset_less=True)
        with m.If(loads[codes_at - 1]):
            m.d.sync += factor.eq(constants.factor)
        with m.If(loads[codes_at - 1 + NormalizeLane.OFFSET_DELAY]):
            m.d.sync += offset.eq(constants.offset)
        with m.If(loads[codes_at - 1 + NormalizeLane.SHIFT_DELAY]):
            m.d.sync += shift.eq(constants.shift)
        m.d.comb += released.eq(loads[-1])

        address = Signal(range(groups))
        with m.If(valid(address_at)):
            m.d.sync += address.eq(address + 1)
            with m.If(end(address_at)):
                m.d.sync += address.eq(0)

        # Gain records: one a step, to the lanes in turn.
        fill_channel = Signal(range(config.norm_length), reset_less=True)
        fill_valid = Signal()
        lane_bits = lanes.bit_length() - 1
        record_bits = (word_bytes // 8 - 1).bit_length()
        record = source.word.word_select(source.step[:record_bits], 64)
        m.d.comb += fill_valid.eq(self.fill & source.valid)
        if word_bytes > 8:
            # The last word may hold more records than are meant.
            m.d.comb += fill_valid.eq(self.fill & source.valid & (fill_channel < self.rows))
        with m.If(self.start):
            m.d.sync += fill_channel.eq(0)
        with m.Elif(fill_valid):
            m.d.sync += fill_channel.eq(fill_channel + 1)

        outputs: dict[int, list[Value]] = {8: [], 16: []}
        for lane in range(lanes):
            normalize = NormalizeLane(config)
            m.submodules[f"normalize_{lane}"] = normalize
            code = Signal(CODE, name=f"code_{lane}", reset_less=True)
            m.d.sync += code.eq(ring.read_data.word_select(lane, 16))
            m.d.comb += [
                normalize.code.eq(code),
                normalize.factor.eq(factor),
                normalize.offset.eq(offset),
                normalize.shift.eq(shift),
            ]
            for size, bits in ((8, 8), (16, config.residual_bits)):
                gain = GainLane(depth=groups, bits=bits, family=config.family)
                m.submodules[f"gain{size}_{lane}"] = gain
                m.d.comb += [
                    gain.fill.eq(
                        fill_valid
                        & (self.output16 == (size == 16))
                        & (fill_channel[:lane_bits] == lane)
                    ),
                    gain.fill_address.eq(fill_channel[lane_bits:]),
                    gain.fill_gain.eq(record[:16]),
                    gain.fill_bias.eq(record[32:]),
                    gain.address.eq(address),
                    gain.normalized.eq(normalize.normalized),
                    gain.shift.eq(self.shift16 if size == 16 else self.shift8),
                ]
                output = Signal(Shape(size, signed=True), name=f"output{size}_{lane}")
                if size == 16:
                    m.d.comb += output.eq(gain.output)
                else:
                    # One cycle later: a word of each is pushed in different cycles.
                    m.d.sync += output.eq(gain.output)
                outputs[size].append(output)

        pushes = {}
        words = {}
        ends = {}
        masks = {}
        for size, stage, write in ((8, output8_at, self.write8), (16, output16_at, self.write16)):
            size_bytes = size // 8
            word = Signal(8 * word_bytes, name=f"word{size}", reset_less=True)
            last_step = word_bytes // size_bytes // lanes - 1
            position = Signal(range(last_step + 1), name=f"position{size}")
            push = Signal(name=f"push{size}")
            word_row_end = Signal(name=f"word{size}_row_end", reset_less=True)
            m.d.sync += push.eq(
                valid(stage) & write & (end(stage) | (position == last_step)),
            )
            m.d.sync += word_row_end.eq(end(stage))
            with m.If(valid(stage)):
                m.d.sync += [
                    word.word_select(position, size * lanes).eq(Cat(outputs[size])),
                    position.eq(position + 1),
                ]
                with m.If(end(stage)):
                    m.d.sync += position.eq(0)
            # In the last word of a row the bytes of missing channels keep what memory holds.
            missing = Signal(range(word_bytes), name=f"missing{size}")
            m.d.comb += missing.eq(-(self.channels * size_bytes))
            mask = Signal(word_bytes, name=f"mask{size}")
            m.d.comb += mask.eq(Const((1 << word_bytes) - 1))
            with m.If(word_row_end):
                m.d.comb += mask.eq(Const((1 << word_bytes) - 1) >> missing)
            pushes[size], words[size], ends[size], masks[size] = push, word, word_row_end, mask
        m.d.comb += [
            sink.push.eq(pushes[8] | pushes[16]),
            sink.channel.eq(pushes[16]),
            sink.data.eq(Mux(pushes[16], words[16], words[8])),
            sink.mask.eq(Mux(pushes[16], masks[16], masks[8])),
            sink.next_word.eq(1),
            sink.next_row.eq(Mux(pushes[16], ends[16], ends[8])),
        ]
        return m
