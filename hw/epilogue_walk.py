"""The order in which the epilogue visits columns and asks for addresses."""

import enum
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import instruction_layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode


class Kind(enum.IntEnum):
    """What an address is for."""

    ADDEND = 0
    RESIDUAL = 1
    OUT = 2


def column_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One column of one set of rows, in the order of the accumulator buffer.

    low: the column of the matrix modulo word_bytes; emit: the words that this set writes or fills
    from end here; release: the tile ends here; lanes: the lanes whose row exists; record: ring
    position of the scale record of the column, or of lane 0's row.
    """
    return data.StructLayout(
        {
            "set": range(config.rows // config.epilogue_lanes),
            "column": range(config.cols),
            "low": range(config.word_bytes),
            "emit": 1,
            "release": 1,
            "lanes": config.epilogue_lanes,
            "record": range(config.p_depth),
        }
    )


def _at_most(value: Value, limit: int) -> Value:
    """value <= limit for a small limit, in less time than a carry chain takes."""
    bits = limit.bit_length()
    low = Cat(value[:bits] == i for i in range(limit + 1))
    return ~value[bits:].any() & low.any()


class EpilogueWalk(Component):
    """Walks the output of one GEMM, tile by tile, set by set, column by column.

    The columns of a set whose outputs share a word (with an addend: whose addends share one) are a
    piece. For each piece the walk pushes its columns, one a step, and meanwhile asks for one
    address a step: epilogue_lanes reads of each operand, then, where a word of output begins, the
    word's address for each row that exists. The last column waits for the last address. Lanes
    without a row read what lane 0 reads, so that every piece brings the same number of words.

    An ACTIVATION_TABLE is walked as one row of bytes that is only read, as RESIDUAL.

    `start` for one cycle while not `running`; `instruction` is there a cycle before and stays until
    `running` is 0 again. A
    step is made in every cycle in which all three `room` inputs are 1. `wanted` is 1 for one cycle
    with `kind`, `row` (of the matrix) and `word` (of the row) of an address.
    """

    instruction: Any
    start: Signal
    running: Signal
    record_base: Signal
    column: Any
    column_push: Signal
    column_room: Signal
    read_room: Signal
    write_room: Signal
    wanted: Signal
    kind: Signal
    row: Signal
    word: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "start": In(1),
                "running": Out(1),
                "record_base": In(range(config.p_depth)),
                "column": Out(column_layout(config)),
                "column_push": Out(1),
                "column_room": In(1),
                "read_room": In(1),
                "write_room": In(1),
                "wanted": Out(1),
                "kind": Out(Kind),
                "row": Out(12),
                "word": Out(12),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, instruction = self.config, self.instruction
        lanes, sets = config.epilogue_lanes, config.rows // config.epilogue_lanes
        word_log = (config.word_bytes - 1).bit_length()

        table = Signal()
        residual = Signal()
        # Decoded before the start, to keep the opcode out of the paths of a step.
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        m.d.sync += [table.eq(is_table), residual.eq(instruction.residual | is_table)]

        j = Signal(12)
        tile_j = Signal(12)
        j_last = Signal(12)
        column = Signal(range(config.cols))
        set_index = Signal(range(sets))
        # Rows from the set on, and from the group on: the distance to the end is what decides.
        left = Signal(12)
        group_left = Signal(12)
        lane = Signal(range(lanes))
        kind = Signal(Kind)
        addressed = Signal()
        fresh = Signal()
        record_origin = Signal(range(2 * config.p_depth))

        # Where the walk stands.
        few = Signal()
        tile_wide = Signal()
        last_column = Signal()
        last_set = Signal()
        out_last = Signal()
        piece_last = Signal()
        m.d.comb += [
            few.eq(_at_most(left, lanes) | table),
            tile_wide.eq(j == j_last),
            last_column.eq((column == config.cols - 1) | tile_wide),
            last_set.eq((set_index == sets - 1) | few),
        ]
        ends = {size: j[: word_log - size].all() for size in Format}
        with m.Switch(instruction.format):
            for size in Format:
                with m.Case(size):
                    m.d.comb += out_last.eq(last_column | ends[size])
        m.d.comb += piece_last.eq(out_last | (instruction.addend & ends[Format.INT32]))

        # One step: an address and a column.
        go = Signal()
        kind_last = Signal()
        lane_last = Signal()
        addresses_end = Signal()
        exist = Signal(lanes)
        exists = exist.bit_select(lane, 1)
        m.d.comb += [
            exist.eq(Cat(~_at_most(left, i) for i in range(lanes))),
            go.eq(self.running & self.column_room & self.read_room & self.write_room),
            lane_last.eq(lane == lanes - 1),
            addresses_end.eq(addressed | (lane_last & kind_last)),
            self.wanted.eq(go & ~addressed & (exists | (kind != Kind.OUT))),
            self.kind.eq(kind),
            self.row.eq(self._row(left, Mux(exists, lane, 0))),
            self.column_push.eq(go & (~piece_last | addresses_end)),
        ]
        element = Mux(kind == Kind.ADDEND, Format.INT32, instruction.format)
        with m.Switch(element):
            for option in Format:
                with m.Case(option):
                    m.d.comb += self.word.eq(j >> (word_log - option))
        writes = fresh & ~table
        next_kind = Signal(Kind)
        with m.Switch(kind):
            with m.Case(Kind.ADDEND):
                m.d.comb += kind_last.eq(~residual & ~writes)
                m.d.comb += next_kind.eq(Mux(residual, Kind.RESIDUAL, Kind.OUT))
            with m.Case(Kind.RESIDUAL):
                m.d.comb += kind_last.eq(~writes)
                m.d.comb += next_kind.eq(Kind.OUT)
            with m.Default():
                m.d.comb += kind_last.eq(1)
        first_kind = Mux(instruction.addend, Kind.ADDEND, Mux(residual, Kind.RESIDUAL, Kind.OUT))
        with m.If(go & ~addressed):
            m.d.sync += lane.eq(Mux(lane_last, 0, lane + 1))
            with m.If(lane_last):
                m.d.sync += [kind.eq(next_kind), addressed.eq(kind_last)]
        with m.If(self.column_push & piece_last):
            m.d.sync += [kind.eq(first_kind), addressed.eq(0), fresh.eq(out_last)]

        # The next column.
        next_j = Signal(12)
        next_left = Signal(12)
        m.d.comb += next_j.eq(j + 1)
        m.d.comb += next_left.eq(left - lanes)
        with m.If(last_column & ~last_set):
            m.d.comb += next_j.eq(tile_j)
        with m.If(last_set & ~tile_wide):
            m.d.comb += next_left.eq(group_left)
        with m.If(self.column_push):
            m.d.sync += [j.eq(next_j), column.eq(column + 1)]
            with m.If(last_column):
                m.d.sync += [column.eq(0), left.eq(next_left), set_index.eq(set_index + 1)]
                with m.If(last_set):
                    m.d.sync += [set_index.eq(0), tile_j.eq(next_j)]
                    with m.If(tile_wide):
                        m.d.sync += [j.eq(0), tile_j.eq(0), group_left.eq(next_left)]
                        m.d.sync += self.running.eq(~few)
        with m.If(self.start):
            m.d.sync += [
                self.running.eq(1),
                j_last.eq(Mux(table, instruction.count, instruction.n) - 1),
                left.eq(instruction.m),
                group_left.eq(instruction.m),
                record_origin.eq(self.record_base + Mux(instruction.by_row, instruction.m, 0)),
                kind.eq(first_kind),
                fresh.eq(1),
            ]

        out = self.column
        m.d.comb += [
            out.set.eq(set_index),
            out.column.eq(column),
            out.low.eq(j),
            out.emit.eq(out_last),
            out.release.eq(last_column & last_set & ~table),
            out.lanes.eq(exist),
            out.record.eq(self._record(m, record_origin, Mux(instruction.by_row, -left, j))),
        ]
        return m

    def _row(self, left: Value, lane: Value) -> Value:
        """The row of the lane; the set's first row is a multiple of epilogue_lanes."""
        lanes = self.config.epilogue_lanes
        first = (self.instruction.m - left)[:12]
        if lanes & (lanes - 1):
            return first + lane
        return first | lane

    def _record(self, m: Module, origin: Value, distance: Value) -> Value:
        """Ring position of a record, origin + distance before the ring wraps around."""
        depth = self.config.p_depth
        position = Signal(range(2 * depth))
        m.d.comb += position.eq(origin + distance)
        if depth & (depth - 1) == 0:
            return position
        return Mux(position >= depth, position - depth, position)
