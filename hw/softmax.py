"""Softmax without its division: numerators from a table, and one scale record a row."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.serial_divider import SerialDivider
from gateformer.hw.vector_ports import GroupSource, Replay, RowPort, group_bytes, out_layout
from gateformer.hw.vector_row import Pieces, RowRing
from gateformer.spec.arithmetic import SOFTMAX_MAX
from gateformer.spec.config import AcceleratorConfig

RECORD = 8
"""Bytes of a scale record."""


class RowMaximum(Component):
    """The largest counted score of a row, as an unsigned number that is 128 larger; 0 if none is.

    A group of `lanes` such scores comes with each `valid`, the row's last one with `row_end` too.
    `done` is 1 for the cycle after which `maximum` holds the row's result, until the next row is
    done. `start` forgets an unfinished row.
    """

    start: Signal
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
                "start": In(1),
                "valid": In(1),
                "row_end": In(1),
                "group": In(8 * lanes),
                "counted": In(lanes),
                "done": Out(1),
                "maximum": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        level: list[Signal] = []
        for lane in range(self.lanes):
            score = Signal(8, name=f"score_{lane}", reset_less=True)
            m.d.sync += score.eq(self.group.word_select(lane, 8))
            with m.If(~self.counted[lane]):
                m.d.sync += score.eq(0)
            level.append(score)
        valid, row_end = self.valid, self.row_end
        for depth in range(self.lanes.bit_length()):
            if depth:
                larger = []
                for i in range(0, len(level), 2):
                    pair = Signal(8, name=f"larger_{depth}_{i // 2}", reset_less=True)
                    m.d.sync += pair.eq(Mux(level[i] > level[i + 1], level[i], level[i + 1]))
                    larger.append(pair)
                level = larger
            next_valid = Signal(name=f"valid_{depth}")
            next_end = Signal(name=f"row_end_{depth}")
            m.d.sync += [next_valid.eq(valid), next_end.eq(valid & row_end)]
            valid, row_end = next_valid, next_end

        running = Signal(8, reset_less=True)
        largest = Signal(8)
        m.d.comb += [largest.eq(Mux(running > level[0], running, level[0])), self.done.eq(row_end)]
        with m.If(valid):
            m.d.sync += running.eq(largest)
        with m.If(row_end | self.start):
            m.d.sync += running.eq(0)
        with m.If(row_end):
            m.d.sync += self.maximum.eq(largest)
        return m


class Softmax(Component):
    """Rows of int8 scores to numerators (channel 0) and scale records (channel 1).

    Follows spec.arithmetic.softmax_row and reciprocal. `source` brings the rows, each group held
    for softmax_hold cycles, and `replay` brings them again, from `groups` and `masks`, after
    `row.load`; `start` comes first. The numerator is asked for by `position`, see SerialDivider.
    The record of a row takes its turn between two words of a later row, or after the last: while
    `insert` is 1, the replay starts no word, and with `between` the record leaves. While `held_up`
    no row may end, since the division of the last one is not over.

    With `fill`, `source` brings the bytes of the table instead, each group held for as many cycles;
    `filled` is 1 for a cycle after the last one.
    """

    start: Signal
    fill: Signal
    position: Signal
    numerator_bit: Signal
    filled: Signal
    insert: Signal
    between: Signal
    held_up: Signal
    source: Any
    row: Any
    replay: Any
    groups: Signal
    masks: Signal
    push: Signal
    group: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        size = group_bytes(config)
        super().__init__(
            {
                "start": In(1),
                "fill": In(1),
                "position": Out(5),
                "numerator_bit": In(1),
                "filled": Out(1),
                "insert": Out(1),
                "between": In(1),
                "held_up": Out(1),
                "source": In(GroupSource(config)),
                "row": Out(RowPort()),
                "replay": In(Replay()),
                "groups": In(8 * size),
                "masks": In(size),
                "push": Out(1),
                "group": Out(out_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        maximum = self._first_pass(m)
        table_write = self._fill(m)
        numerators, flags = self._second_pass(m, maximum, table_write)
        record, leaving = self._division(m, numerators, flags)
        self._output(m, numerators, flags, record, leaving)
        return m

    def _pieces(self) -> Pieces:
        """Groups cut into softmax_lanes scores."""
        size = group_bytes(self.config)
        return Pieces(
            group_bits=8 * size,
            mask_bits=size,
            count=size // self.config.softmax_lanes,
            interval=1,
        )

    def _first_pass(self, m: Module) -> Signal:
        """Finds each row's largest score; returns it as it is in the row's second pass."""
        source, row = self.source, self.row
        m.submodules.first = first = self._pieces()
        m.submodules.maximum = maximum = RowMaximum(lanes=self.config.softmax_lanes)
        # Seen as unsigned numbers that are 128 larger, so that a reset makes the lowest score.
        unsigned_scores = Const(0x80, 8).replicate(self.config.softmax_lanes)
        begun = Signal()
        largest = Signal(8, reset_less=True)
        first.cut(m, source, ~self.fill)
        m.d.comb += [
            maximum.start.eq(self.start),
            maximum.valid.eq(first.take),
            maximum.row_end.eq(first.last),
            maximum.group.eq(first.piece ^ unsigned_scores),
            maximum.counted.eq(first.counted),
            row.free.eq(begun),
        ]
        with m.If(first.last):
            m.d.sync += row.final.eq(source.final)
        with m.If(maximum.done):
            m.d.sync += row.ready.eq(1)
        with m.If(row.load):
            m.d.sync += row.ready.eq(0)
        m.d.sync += begun.eq(self.replay.go & self.replay.begin)
        with m.If(begun):
            m.d.sync += largest.eq(maximum.maximum)
        return largest

    def _fill(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """What the tables are filled with: enable, address, data."""
        source = self.source
        size = group_bytes(self.config)
        m.submodules.bytes = bytes_ = Pieces(
            group_bits=8 * size, mask_bits=size, count=size, interval=1
        )
        valid = Signal()
        address = Signal(8, reset_less=True)
        entry = Signal(8, reset_less=True)
        bytes_.cut(m, source, self.fill)
        m.d.sync += [
            valid.eq(bytes_.take),
            entry.eq(bytes_.piece),
            address.eq(address + valid),
            self.filled.eq(bytes_.last),
        ]
        with m.If(self.start):
            m.d.sync += address.eq(0)
        return valid, address, entry

    def _second_pass(
        self, m: Module, largest: Signal, fill: tuple[Signal, Signal, Signal]
    ) -> tuple[list[Signal], list[Value]]:
        """From `go` on: 1 groups, 2 scores, 3 differences, 5 table data, 6 numerators.

        Returns the numerators, and from stage 1 on whether there are some and whether they end the
        row."""
        m.submodules.second = second = self._pieces()
        lanes = self.config.softmax_lanes
        replayed = Signal()
        group_end = Signal(reset_less=True)
        m.d.sync += replayed.eq(self.replay.go)
        with m.If(self.replay.go):
            m.d.sync += group_end.eq(self.replay.end)
        m.d.comb += [
            second.valid.eq(replayed),
            second.group.eq(self.groups),
            second.mask.eq(self.masks),
            second.end.eq(group_end),
        ]
        flags: list[Value] = [Cat(second.take, second.last)]
        counted: Value = second.counted & second.take.replicate(lanes)
        for stage in range(2, 7):
            flags.append(Signal(2, name=f"flags_{stage}"))
            m.d.sync += flags[-1].eq(flags[-2])
            if stage < 6:
                following = Signal(lanes, name=f"counted_{stage}", reset_less=True)
                m.d.sync += following.eq(counted)
                counted = following
        numerators = []
        for lane in range(lanes):
            # Filling and looking up are different instructions: never in one cycle.
            table = WordRam(depth=256, width_bytes=1, family=self.config.family)
            m.submodules[f"table_{lane}"] = table
            score = Signal(8, name=f"second_score_{lane}", reset_less=True)
            difference = Signal(8, name=f"difference_{lane}", reset_less=True)
            numerator = Signal(8, name=f"numerator_{lane}", reset_less=True)
            m.d.comb += [
                table.write_mask.eq(fill[0]),
                table.write_address.eq(fill[1]),
                table.write_data.eq(fill[2]),
                table.read_address.eq(difference),
            ]
            m.d.sync += [
                score.eq(second.piece.word_select(lane, 8) ^ 0x80),
                difference.eq(largest - score),
                numerator.eq(table.read_data),
            ]
            with m.If(~counted[lane]):
                m.d.sync += numerator.eq(0)
            numerators.append(numerator)
        return numerators, flags

    def _division(
        self, m: Module, numerators: list[Signal], flags: list[Value]
    ) -> tuple[list[Value], Value]:
        """The row's sum and its division; returns the groups of the record, and the end of its
        way: which group (one-hot) and whether it is the job's last."""
        size = group_bytes(self.config)
        m.submodules.divider = divider = SerialDivider(
            total_bits=(SOFTMAX_MAX * self.config.softmax_length).bit_length(),
            family=self.config.family,
        )
        # Pair by pair, a cycle each.
        level = numerators
        valid, end = flags[-1]
        while len(level) > 1:
            pairs = []
            for i in range(0, len(level), 2):
                pair = Signal(len(level[i]) + 1, name=f"sum_{len(level)}_{i}", reset_less=True)
                m.d.sync += pair.eq(level[i] + level[i + 1])
                pairs.append(pair)
            following = Signal(2, name=f"sum_flags_{len(level)}")
            m.d.sync += following.eq(Cat(valid, end))
            level, (valid, end) = pairs, following
        partial = Signal.like(divider.total, reset_less=True)
        summed = Signal()
        m.d.sync += summed.eq(end)
        with m.If(valid):
            m.d.sync += partial.eq(partial + level[0])
        # Nothing is added in the cycle behind a row: its successor is loaded first.
        with m.If(summed | self.start):
            m.d.sync += partial.eq(0)

        # A row's record is due from its end until it has left.
        dividing = Signal()
        final = Signal(reset_less=True)
        parts = RECORD // size
        turn = Signal(parts)
        m.d.comb += [
            divider.start.eq(summed),
            divider.total.eq(partial),
            divider.numerator_bit.eq(self.numerator_bit),
            self.position.eq(divider.position),
            turn[0].eq(self.between & ~turn[1:].any()),
        ]
        for i in range(1, parts):
            m.d.sync += turn[i].eq(turn[i - 1])
        with m.If(self.replay.go & self.replay.end):
            m.d.sync += [self.held_up.eq(1), final.eq(self.replay.final)]
        with m.If(summed):
            m.d.sync += dividing.eq(1)
        with m.Elif(dividing & ~divider.busy):
            m.d.sync += [dividing.eq(0), self.insert.eq(1)]
        with m.If(turn[-1]):
            m.d.sync += [self.insert.eq(0), self.held_up.eq(0)]
        leaving: Value = Cat(turn, turn[-1] & final)
        # As long a way as that of a group from the ring, which `replay` announces late.
        for stage in range(1, RowRing.LATENCY + 6):
            following = Signal(parts + 1, name=f"leaving_{stage}")
            m.d.sync += following.eq(leaving)
            leaving = following
        record = Cat(Const(0, 32), divider.multiplier, divider.selector, Const(0, 14))
        return [record.word_select(i, 8 * size) for i in range(parts)], leaving

    def _output(
        self,
        m: Module,
        numerators: list[Signal],
        flags: list[Value],
        record: list[Value],
        leaving: Value,
    ) -> None:
        """Groups of numerators, and the record's groups in between; 0 in other jobs."""
        steps = group_bytes(self.config) // len(numerators)
        position = Signal(range(steps), reset_less=True)
        take, end = flags[-1]
        turns = leaving[:-1]
        with m.If(take):
            m.d.sync += [
                self.group.data.word_select(position, 8 * len(numerators)).eq(Cat(numerators)),
                position.eq(position + 1),
            ]
        for i, part in enumerate(record):
            with m.If(turns[i]):
                m.d.sync += self.group.data.eq(part)
        with m.If(self.start):
            m.d.sync += [self.group.data.eq(0), position.eq(0)]
        m.d.sync += [
            self.push.eq((take & (position == steps - 1)) | turns.any()),
            self.group.channel.eq(turns.any()),
            self.group.end.eq(end),
            self.group.final.eq(leaving[-1]),
        ]
