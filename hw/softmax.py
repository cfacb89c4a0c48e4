"""Softmax without its division: numerators from a table, and one scale record a row."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.serial_divider import SerialDivider
from gateformer.hw.vector_ports import WordSink, WordSource
from gateformer.hw.vector_row import LaneCounter, RowRing, WordCounter, ring_groups
from gateformer.spec.arithmetic import SOFTMAX_MAX
from gateformer.spec.config import AcceleratorConfig

SCORE = Shape(8, signed=True)
LOWEST = -128


class RowMaximum(Component):
    """The largest counted score of a row; -128 if none counts.

    A group of `lanes` scores comes with each `valid`, the row's last one with `row_end` too. `done`
    is 1 for the cycle after which `maximum` holds the row's result, until the next row is done.
    """

    valid: Signal
    row_end: Signal
    group: Signal
    counted: Signal
    done: Signal
    maximum: Signal

    def __init__(self, *, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "valid": In(1),
                "row_end": In(1),
                "group": In(8 * lanes),
                "counted": In(lanes),
                "done": Out(1),
                "maximum": Out(SCORE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        level: list[Signal] = []
        for lane in range(self.lanes):
            score = Signal(SCORE, name=f"score_{lane}", init=LOWEST, reset_less=True)
            m.d.sync += score.eq(self.group.word_select(lane, 8))
            with m.If(~self.counted[lane]):
                m.d.sync += score.eq(LOWEST)
            level.append(score)
        valid, row_end = self.valid, self.row_end
        for depth in range(self.lanes.bit_length()):
            if depth:
                larger = []
                for i in range(0, len(level), 2):
                    pair = Signal(SCORE, name=f"larger_{depth}_{i // 2}", reset_less=True)
                    m.d.sync += pair.eq(Mux(level[i] > level[i + 1], level[i], level[i + 1]))
                    larger.append(pair)
                level = larger
            next_valid = Signal(name=f"valid_{depth}")
            next_end = Signal(name=f"row_end_{depth}")
            m.d.sync += [next_valid.eq(valid), next_end.eq(valid & row_end)]
            valid, row_end = next_valid, next_end

        running = Signal(SCORE, init=LOWEST)
        largest = Signal(SCORE)
        m.d.comb += [largest.eq(Mux(running > level[0], running, level[0])), self.done.eq(row_end)]
        with m.If(valid):
            m.d.sync += running.eq(largest)
        with m.If(row_end):
            m.d.sync += [self.maximum.eq(largest), running.eq(LOWEST)]
        return m


class Softmax(Component):
    """Rows of int8 scores to numerators (channel 0) and scale records (channel 1).

    Follows spec.arithmetic.softmax_row and reciprocal. After `start`, `source` brings `rows` rows
    of `words` words (both at least 1), each for word_bytes / softmax_lanes steps; `rows`, `words`,
    `length`, `bound`, `causal` and `numerator` stay until `done`, which is 1 once the last record
    was pushed. The maximum of a row is found while its words go to a ring; its numerators are made
    from there, softmax_lanes a cycle, while the next row comes in. The division of a row runs
    beside both, and bounds the rate of rows shorter than it.

    With `fill`, each step of `source` is a byte of the table instead; `start` comes first.
    """

    start: Signal
    fill: Signal
    rows: Signal
    words: Signal
    length: Signal
    bound: Signal
    causal: Signal
    numerator: Signal
    done: Signal
    source: Any
    sink: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "fill": In(1),
                "rows": In(12),
                "words": In(12),
                "length": In(12),
                "bound": In(12),
                "causal": In(1),
                "numerator": In(32),
                "done": Out(1),
                "source": In(WordSource(config)),
                "sink": Out(WordSink(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, source, sink = self.config, self.source, self.sink
        lanes = config.softmax_lanes
        lane_bits = lanes.bit_length() - 1
        steps = config.word_bytes // lanes
        records = config.word_bytes // 8

        m.submodules.ring = ring = RowRing(
            group_bits=8 * lanes, groups=ring_groups(config.softmax_length, lanes), steps=steps
        )
        m.submodules.maximum = maximum = RowMaximum(lanes=lanes)
        m.submodules.first_lanes = first_lanes = LaneCounter(lanes=lanes, bits=12)
        m.submodules.second_lanes = second_lanes = LaneCounter(lanes=lanes, bits=12)

        # First pass: the maximum of the counted scores, and the row's way into the ring.
        group = Signal(8 * lanes)
        step = Signal(range(steps))
        first_valid = Signal()
        first_end = Signal()
        m.d.comb += [
            step.eq(Mux(self.fill, source.step >> lane_bits, source.step)),
            group.eq(source.word.word_select(step, 8 * lanes)),
            first_valid.eq(source.valid & ~self.fill),
            first_end.eq(first_valid & source.last & (source.step == steps - 1)),
            ring.write.eq(first_valid),
            ring.write_data.eq(group),
            maximum.valid.eq(first_valid),
            maximum.row_end.eq(first_end),
            maximum.group.eq(group),
            maximum.counted.eq(first_lanes.counted),
        ]
        # The next row's bound is ready a cycle after the row's own, long before that row. That of
        # the first row is only cut.
        first_bound = Signal(12, reset_less=True)
        next_bound = Signal(12, reset_less=True)
        start_1 = Signal()
        start_2 = Signal()
        m.d.sync += [start_1.eq(self.start), start_2.eq(start_1), next_bound.eq(self.length)]
        with m.If(first_bound < self.length):
            m.d.sync += next_bound.eq(first_bound + (self.causal & ~start_1))
        with m.If(self.start):
            m.d.sync += first_bound.eq(self.bound)
        with m.Elif(first_lanes.load):
            m.d.sync += first_bound.eq(next_bound)
        m.d.comb += [
            first_lanes.load.eq(start_2 | first_end),
            first_lanes.total.eq(next_bound),
            first_lanes.advance.eq(first_valid),
        ]

        # Between the passes one row waits, with its maximum. The last word of the next row is not
        # requested before the second pass has taken it.
        waiting_bound = Signal(12, reset_less=True)
        waiting = Signal()
        owed = Signal()
        load = Signal()
        with m.If(first_end):
            m.d.sync += waiting_bound.eq(first_bound)
        with m.If(maximum.done):
            m.d.sync += waiting.eq(1)
        with m.If(source.issue_last & ~self.fill):
            m.d.sync += owed.eq(1)
        with m.If(load):
            m.d.sync += [waiting.eq(0), owed.eq(0)]
        m.d.comb += [
            source.allow.eq(self.fill | ring.allow),
            source.allow_last.eq(self.fill | ~owed),
            ring.issue.eq(source.issue & ~self.fill),
        ]

        # Second pass: groups leave the ring. Each word has its place in the write queue beforehand,
        # as has the row's record.
        running = Signal()
        second_step = Signal(range(steps), reset_less=True)
        m.submodules.second_words = second_words = WordCounter(bits=12)
        row_begin = Signal(reset_less=True)
        word_begin = Signal()
        word_end = Signal()
        row_end = Signal()
        go = Signal()
        sum_waiting = Signal()
        m.d.comb += [
            word_begin.eq(second_step == 0),
            word_end.eq(second_step == steps - 1),
            row_end.eq(word_end & second_words.last),
            second_words.load.eq(load),
            second_words.words.eq(self.words),
            second_words.advance.eq(go & word_end),
            go.eq(running & (~word_begin | sink.room) & ~(row_end & sum_waiting)),
            load.eq(waiting & (~running | (go & row_end))),
            ring.read.eq(go),
            ring.release.eq(go & word_end),
            second_lanes.load.eq(load),
            second_lanes.total.eq(waiting_bound),
            second_lanes.advance.eq(go),
        ]
        if steps == 1:
            # A word a cycle leaves no cycle to push records: a pause between rows does.
            m.d.comb += load.eq(waiting & ~running)
        with m.If(go & word_begin):
            m.d.comb += sink.reserve.eq(Mux(row_begin, 2, 1))
        with m.If(go):
            m.d.sync += [second_step.eq(second_step + 1), row_begin.eq(0)]
            with m.If(word_end):
                m.d.sync += second_step.eq(0)
            with m.If(row_end):
                m.d.sync += running.eq(0)
        with m.If(load):
            m.d.sync += [running.eq(1), row_begin.eq(1)]

        # From `go` on: 1 ring data, 2 score, 3 difference, 4 table data, 5 numerator.
        flags = Signal(2 + lanes)
        m.d.comb += flags.eq(Cat(go & row_end, go, second_lanes.counted))
        stages = [flags]
        for stage in range(1, 6):
            stages.append(Signal(2 + lanes, name=f"flags_{stage}"))
            m.d.sync += stages[-1].eq(stages[-2])
        # The row's maximum changes between the differences of two rows.
        load_1 = Signal()
        load_2 = Signal()
        largest = Signal(SCORE, reset_less=True)
        m.d.sync += [load_1.eq(load), load_2.eq(load_1)]
        with m.If(load_2):
            m.d.sync += largest.eq(maximum.maximum)

        entry = Signal(8, reset_less=True)
        entry_valid = Signal()
        fill_address = Signal(8, reset_less=True)
        m.d.sync += [
            entry.eq(group.word_select(source.step[:lane_bits], 8) if lane_bits else group),
            entry_valid.eq(self.fill & source.valid),
            fill_address.eq(Mux(self.start, 0, fill_address + entry_valid)),
        ]
        numerators = []
        for lane in range(lanes):
            # Filling and looking up are different instructions: never in one cycle.
            table = Memory(shape=8, depth=256, init=[], attrs={"no_rw_check": 1})
            m.submodules[f"table_{lane}"] = table
            write, read = table.write_port(), table.read_port()
            score = Signal(SCORE, name=f"second_score_{lane}", reset_less=True)
            difference = Signal(8, name=f"difference_{lane}", reset_less=True)
            numerator = Signal(8, name=f"numerator_{lane}", reset_less=True)
            m.d.comb += [
                write.addr.eq(fill_address),
                write.data.eq(entry),
                write.en.eq(entry_valid),
                read.addr.eq(difference),
            ]
            m.d.sync += [
                score.eq(ring.read_data.word_select(lane, 8)),
                difference.eq(largest - score),
                numerator.eq(read.data),
            ]
            with m.If(~stages[4][2 + lane]):
                m.d.sync += numerator.eq(0)
            numerators.append(numerator)

        packed_end, packed_valid = stages[5][0], stages[5][1]
        packed = Signal(8 * config.word_bytes, reset_less=True)
        packed_step = Signal(range(steps))
        word_done = Signal()
        row_done = Signal()
        m.d.sync += [
            word_done.eq(packed_valid & (packed_step == steps - 1)),
            row_done.eq(packed_end),
        ]
        with m.If(packed_valid):
            m.d.sync += packed_step.eq(packed_step + 1)
            m.d.sync += packed.word_select(packed_step, 8 * lanes).eq(Cat(numerators))

        # The row's sum and its division.
        m.submodules.divider = divider = SerialDivider(
            total_bits=(SOFTMAX_MAX * config.softmax_length).bit_length()
        )
        group_sum = Signal(range(256 * lanes), reset_less=True)
        partial = Signal.like(divider.total)
        total = Signal.like(divider.total, reset_less=True)
        group_valid = Signal()
        m.d.sync += [group_sum.eq(sum(numerators)), group_valid.eq(packed_valid)]
        with m.If(group_valid):
            m.d.sync += partial.eq(partial + group_sum)
        with m.If(row_done):
            m.d.sync += [total.eq(partial + group_sum), partial.eq(0)]

        sum_ready = Signal()
        dividing = Signal()
        record_push = Signal()
        m.d.comb += [
            divider.numerator.eq(self.numerator),
            divider.total.eq(total),
            divider.start.eq(sum_ready & ~dividing),
            record_push.eq(dividing & ~divider.busy & ~word_done),
        ]
        with m.If(go & row_end):
            m.d.sync += sum_waiting.eq(1)
        with m.If(row_done):
            m.d.sync += sum_ready.eq(1)
        with m.If(divider.start):
            m.d.sync += [sum_ready.eq(0), sum_waiting.eq(0), dividing.eq(1)]
        with m.If(record_push):
            m.d.sync += dividing.eq(0)

        # Records fill a word one after the other; words of numerators go first.
        rows_left = Signal(12)
        slot = Signal(range(records), reset_less=True)
        record = Cat(Const(0, 32), divider.multiplier, divider.selector, Const(0, 14))
        with m.If(record_push):
            m.d.sync += [rows_left.eq(rows_left - 1), slot.eq(slot + 1)]
        with m.If(self.start & ~self.fill):
            m.d.sync += [rows_left.eq(self.rows), slot.eq(0)]
        m.d.comb += [
            self.done.eq(rows_left == 0),
            sink.push.eq(word_done | record_push),
            sink.channel.eq(~word_done),
            sink.data.eq(Mux(word_done, packed, record.replicate(records))),
            sink.mask.eq(Mux(word_done, ~0, Const(255, config.word_bytes) << (slot * 8))),
            sink.next_word.eq(word_done | (slot == records - 1)),
        ]
        # A row ends with its last word; the flag comes with the push of that word.
        m.d.comb += sink.next_row.eq(row_done)
        return m
