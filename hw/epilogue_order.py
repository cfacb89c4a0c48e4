"""The order of an output's columns: tile by tile, set by set, column by column."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import instruction_layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode


class EpilogueOrder(Component):
    """Counts through the columns of one GEMM in the order of the accumulator buffer.

    `start` goes to the first column, `advance` to the next. Of the current one: `j` in the matrix,
    `column` and `set` in its tile, `row` the first row of the set in the matrix. The column is the
    last of its tile's set: `last_column`; of that set's part of a word of outputs: `out_last`,
    where a set is a whole tile of the word itself, which goes on in the next tile; of a piece,
    which are the columns whose outputs share a word, with an addend whose addends share one:
    `piece_last`. `last_set`: the set is the last of its tile; `group_last`: the column is the last
    of a group of rows, `last`: of all. `lanes`: which lanes have a row; the row of lane 0 exists.
    These four know of an advance to another set two cycles later: a set takes two cycles at least.

    An ACTIVATION_TABLE is one row of `count` columns. `instruction` is there two cycles before
    `start`.
    """

    instruction: Any
    start: Signal
    advance: Signal
    j: Signal
    column: Signal
    set: Signal
    row: Signal
    last_column: Signal
    out_last: Signal
    piece_last: Signal
    last_set: Signal
    group_last: Signal
    last: Signal
    lanes: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "start": In(1),
                "advance": In(1),
                "j": Out(12),
                "column": Out(range(config.cols)),
                "set": Out(range(config.rows // config.epilogue_lanes)),
                "row": Out(12),
                "last_column": Out(1),
                "out_last": Out(1),
                "piece_last": Out(1),
                "last_set": Out(1),
                "group_last": Out(1),
                "last": Out(1),
                "lanes": Out(config.epilogue_lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, instruction = self.config, self.instruction
        lanes, sets = config.epilogue_lanes, config.rows // config.epilogue_lanes

        # Decoded before the start, to keep the opcode out of the paths of a step.
        table = Signal()
        single = Signal()
        columns = Signal(12)
        splits = Signal()
        sizes = Signal(len(Format))
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        m.d.sync += [
            table.eq(is_table),
            columns.eq(Mux(is_table, instruction.count, instruction.n)),
            single.eq(columns == 1),
            splits.eq(instruction.addend),
            sizes.eq(Cat(instruction.format == option for option in Format)),
        ]

        # Rows are counted up; what follows from those that are left is a cycle late.
        left = Signal(12)
        few = Signal()
        exist = Signal(lanes)
        m.d.comb += [
            left.eq(instruction.m - self.row),
            self.last_set.eq((self.set == sets - 1) | few),
            self.lanes.eq(Cat(1, exist[1:])),
        ]
        m.d.sync += [
            few.eq(_at_most(left, lanes) | table),
            exist.eq(Cat(~_at_most(left, i) & ~table for i in range(lanes))),
        ]

        # Whether the next column ends a word of elements of each size: the one behind this one, or
        # the tile's first, which is this one's column long before the tile ends.
        word_log = (config.word_bytes - 1).bit_length()
        next_ends, first_ends = Signal(len(Format)), Signal(len(Format), reset_less=True)
        word_ends = Signal(len(Format))
        places = [self.j[: word_log - option] for option in Format]
        m.d.comb += next_ends.eq(Cat(~place[:1].any() & place[1:].all() for place in places))
        with m.If(self.column == 0):
            m.d.sync += first_ends.eq(Cat(place.all() for place in places))

        # The next column is one further, or the tile's first again, or the first of all.
        last_j = Signal()
        back = Signal()
        next_j = Signal(12)
        next_last_j = Signal()
        next_last_column = Signal()
        next_out_last = Signal()
        narrow = config.cols == 1
        before_last = Const(1) if narrow else (self.column == config.cols - 2) & ~self.last_column
        m.d.comb += [
            back.eq(self.last_column & ~self.last_set),
            self.group_last.eq(last_j & self.last_set),
            self.last.eq(self.group_last & few),
            next_j.eq(self.j + Mux(back, Cat(~self.column, 1), 0).as_signed() + 1),
            next_last_j.eq(Mux(back, last_j & (self.column == 0), _two_more(columns, self.j))),
            next_last_column.eq(next_last_j | before_last),
            word_ends.eq(Mux(back, first_ends, next_ends)),
            next_out_last.eq(
                (next_last_j if sets == 1 else next_last_column) | (word_ends & sizes).any()
            ),
        ]
        with m.If(self.start | self.advance):
            m.d.sync += [
                self.j.eq(next_j),
                self.column.eq(Mux(self.last_column, 0, self.column + 1)),
                last_j.eq(next_last_j),
                self.last_column.eq(next_last_column),
                self.out_last.eq(next_out_last),
                self.piece_last.eq(next_out_last | (splits & word_ends[Format.INT32])),
            ]
            with m.If(self.start | self.group_last):
                m.d.sync += [self.j.eq(0), self.column.eq(0), last_j.eq(single)]
                m.d.sync += self.last_column.eq(single | narrow)
                m.d.sync += Cat(self.out_last, self.piece_last).eq(
                    (single if sets == 1 else single | narrow).replicate(2)
                )
        again = self.last_set & ~last_j
        with m.If(self.start):
            m.d.sync += [self.row.eq(0), self.set.eq(0)]
        with m.Elif(self.advance & self.last_column):
            m.d.sync += [
                self.row.eq(self.row + Mux(again, -(self.set * lanes), lanes)),
                self.set.eq(Mux(self.last_set, 0, self.set + 1)),
            ]
        return m


def _at_most(value: Value, limit: int) -> Value:
    """value <= limit for a small limit, in less time than a carry chain takes."""
    bits = limit.bit_length()
    low = Cat(value[:bits] == i for i in range(limit + 1))
    return ~value[bits:].any() & low.any()


def _two_more(greater: Value, less: Value) -> Value:
    """greater == less + 2 without a carry chain: two bits differ where the one below carried."""
    x, y = less[1:], greater[1:]
    equal = [greater[0] == less[0], x[0] != y[0]]
    equal += [(x[i] != y[i]) == (x[i - 1] & ~y[i - 1]) for i in range(1, len(x))]
    return Cat(equal).all()
