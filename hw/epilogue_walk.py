"""The steps in which the epilogue visits columns and asks for addresses."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_order import EpilogueOrder
from gateformer.hw.interfaces import instruction_layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode

KINDS = data.StructLayout({"addend": 1, "residual": 1, "out": 1})
"""What an address is for, one-hot; none of them: no address."""


def beat_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What happens in one step of the walk, in the order of the accumulator buffer.

    visit: a column is computed, `column` of `set` of the oldest tile; low: its place in a word of
    outputs, in outputs, the halves of an INT32 being two; emit: the words that this set writes or
    fills from end with it; release: the tile ends with it; lanes: the lanes whose row exists;
    record: ring position of the scale record of the column, or of lane 0's row. load_addend,
    load_residual: the lanes take their next words of that operand.
    """
    return data.StructLayout(
        {
            "visit": 1,
            "set": range(config.rows // config.epilogue_lanes),
            "column": range(config.cols),
            "low": range(config.word_bytes),
            "emit": 1,
            "release": 1,
            "lanes": config.epilogue_lanes,
            "record": range(config.p_depth),
            "load_addend": 1,
            "load_residual": 1,
        }
    )


class EpilogueWalk(Component):
    """Walks through the pieces of one GEMM (see `EpilogueOrder`), a step a cycle.

    A piece takes at least epilogue_lanes steps, and two at least. Each step is a beat; it may ask
    for an address: of each operand for each row that exists, then, where a word of output begins,
    of that word for each row that exists. Beside that go the piece's columns, one a step (an INT32
    takes two, one for each half), behind the addends where there are residuals too. The last one
    waits for the last address.

    The words of an operand are taken from the beat on that asks for the first of them. So loads,
    starts and ends of pieces all are at least epilogue_lanes beats apart.

    An ACTIVATION_TABLE is walked as one row of bytes that is only read, as RESIDUAL.

    `start` for one cycle while not `running`; `instruction` is there two cycles before and stays
    until `running` is 0 again. A step is made in every cycle in which `room` is 1. `wanted`, `kind`
    and `j` belong to the step itself; `row` (the row whose address it asks for), `ends` (it is the
    last row of the set that exists), `beat` and `push` come a cycle later.
    """

    instruction: Any
    start: Signal
    running: Signal
    record_base: Signal
    room: Signal
    step: Signal
    wanted: Signal
    ends: Signal
    kind: Any
    j: Signal
    row: Signal
    push: Signal
    beat: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "start": In(1),
                "running": Out(1),
                "record_base": In(range(config.p_depth)),
                "room": In(1),
                "step": Out(1),
                "wanted": Out(1),
                "ends": Out(1),
                "kind": Out(KINDS),
                "j": Out(12),
                "row": Out(12),
                "push": Out(1),
                "beat": Out(beat_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, instruction = self.config, self.instruction
        m.submodules.order = order = EpilogueOrder(config)
        table, residual, total = Signal(), Signal(), Signal()
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        m.d.sync += [
            table.eq(is_table),
            residual.eq(instruction.residual | is_table),
            total.eq(instruction.format == Format.INT32),
        ]

        walking = Signal()
        first = Signal()
        half = Signal()
        addressed = Signal()
        visit = Signal()
        whole = Signal()
        last = Signal()
        ends = Signal()
        m.d.comb += [
            self.running.eq(walking),
            self.step.eq(walking & self.room),
            self.j.eq(order.j),
            # The column's last beat.
            whole.eq(half | ~total),
            visit.eq(
                ~(self.kind.addend & residual) & (~order.piece_last | ~whole | (addressed & ~first))
            ),
            order.instruction.eq(instruction),
            order.start.eq(self.start),
            last.eq(visit & whole),
            order.advance.eq(self.step & last),
            # The piece ends with the step, if it is made.
            ends.eq(last & order.piece_last),
        ]
        with m.If(self.start | self.step):
            m.d.sync += [
                walking.eq(self.start | ~(ends & order.last)),
                first.eq(self.start | ends),
            ]
        with m.If(self.step & visit):
            m.d.sync += half.eq(~whole)

        lane = self._addresses(m, ends, order.out_last, addressed, residual, table)
        turn = Signal(config.epilogue_lanes)
        m.d.comb += [
            turn.eq(Cat(order.lanes[i] & (lane == i) for i in range(len(turn)))),
            self.wanted.eq(self.step & self.kind.as_value().any() & turn.any()),
        ]

        # The step's beat, a cycle later.
        word_log = (config.word_bytes - 1).bit_length()
        beat = Signal.like(self.beat)
        row = Signal(12, reset_less=True)
        column = Signal(12, reset_less=True)
        step_lane = Signal.like(lane, reset_less=True)
        step_turn = Signal.like(turn, reset_less=True)
        m.d.sync += [
            self.push.eq(self.step),
            beat.visit.eq(visit),
            beat.set.eq(order.set),
            beat.column.eq(order.column),
            beat.low.eq(Mux(total, Cat(half, order.j[: word_log - 1]), order.j[:word_log])),
            beat.emit.eq(last & order.out_last),
            beat.release.eq(last & order.last_column & order.last_set & ~table),
            beat.load_addend.eq(self.kind.addend & turn[0]),
            beat.load_residual.eq(self.kind.residual & turn[0]),
            row.eq(order.row),
            column.eq(order.j),
            step_lane.eq(lane),
            step_turn.eq(turn),
        ]
        m.d.comb += [
            self.beat.eq(beat),
            self.beat.lanes.eq(order.lanes),
            self.beat.record.eq(self._record(m, Mux(instruction.by_row, row, column))),
            self.row.eq(self._row(row, step_lane)),
            self.ends.eq((step_turn & ~Cat(order.lanes[1:], Const(0, 1))).any()),
        ]
        return m

    def _addresses(
        self,
        m: Module,
        ends: Signal,
        out_last: Signal,
        addressed: Signal,
        residual: Signal,
        table: Signal,
    ) -> Signal:
        """The kinds of a piece, a lane a step; `addressed` from the last on. Returns the lane."""
        addend, lanes = self.instruction.addend, self.config.epilogue_lanes
        lane = Signal(range(lanes))
        lane_last = Signal()
        fresh = Signal()
        begins = Signal()
        next_fresh = Signal()
        kind = Signal.like(self.kind)
        # A word of output is asked for behind the operands, where one begins.
        writes = fresh & ~table
        next_writes = next_fresh & ~table
        follows = (kind.addend & (residual | writes)) | (kind.residual & writes)
        m.d.comb += [
            self.kind.eq(kind),
            lane_last.eq(lane == lanes - 1),
            begins.eq(self.start | ends),
            next_fresh.eq(self.start | out_last),
        ]
        alone = lanes == 1
        with m.If(self.start | self.step):
            m.d.sync += lane.eq(Mux(lane_last, 0, lane + 1))
            with m.If(lane_last):
                m.d.sync += [
                    kind.addend.eq(0),
                    kind.residual.eq(kind.addend & residual),
                    kind.out.eq(writes & (kind.residual | (kind.addend & ~residual))),
                    addressed.eq(~follows | (alone & ~(kind.addend & residual & writes))),
                ]
            with m.Else():
                m.d.sync += addressed.eq(addressed | ((lane == lanes - 2) & ~follows))
            with m.If(begins):
                m.d.sync += [
                    lane.eq(0),
                    fresh.eq(next_fresh),
                    kind.addend.eq(addend),
                    kind.residual.eq(~addend & residual),
                    # Without an addend a piece is a word of output.
                    kind.out.eq(~addend & ~residual),
                    addressed.eq(
                        alone & Mux(addend, ~residual & ~next_writes, ~residual | ~next_writes)
                    ),
                ]
        return lane

    def _row(self, row: Value, lane: Value) -> Value:
        """The row of the lane; the set's first row is a multiple of epilogue_lanes."""
        lanes = self.config.epilogue_lanes
        return row + lane if lanes & (lanes - 1) else row | lane

    def _record(self, m: Module, distance: Value) -> Value:
        """Ring position of a record, which lies `distance` behind the oldest."""
        depth = self.config.p_depth
        position = Signal(range(2 * depth))
        m.d.comb += position.eq(self.record_base + distance)
        if depth & (depth - 1) == 0:
            return position
        return Mux(position >= depth, position - depth, position)
