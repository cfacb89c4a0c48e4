"""The norm unit's ports, its way from sums to constants, and the filling of its gains."""

from typing import Any

from amaranth import Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.norm_turns import ConstantsTurns
from gateformer.hw.vector_constants import RowConstants
from gateformer.hw.vector_normalize import RowSums
from gateformer.hw.vector_ports import GroupSource, Replay, RowPort, group_bytes, out_layout
from gateformer.spec.config import AcceleratorConfig

RECORD = 8
"""Bytes of a gain record."""


class NormPorts(Component):
    """Rows of int16 codes to int8 (channel 0) and int16 outputs (channel 1).

    Follows spec.arithmetic.normalize_row and gain; the int16 output saturates to residual_bits.
    `source` brings the rows, each group held for the instruction's hold, and `replay` brings them
    again, from `groups`, after `row.load`; `start` comes first and all other inputs stay. Of a
    code's two mask bits the second says whether its group is the row's last, see RowReader.

    With `fill`, the groups of `source` are `records` gain records instead, of the int16 output if
    `output16`, else of the int8 output; `filled` is 1 for a cycle after the last one.
    """

    start: Signal
    fill: Signal
    output16: Signal
    records: Signal
    channels: Signal
    write8: Signal
    write16: Signal
    shift8: Signal
    shift16: Signal
    position: Signal
    epsilon_bit: Signal
    filled: Signal
    source: Any
    row: Any
    replay: Any
    groups: Signal
    masks: Signal
    push: Signal
    group: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "fill": In(1),
                "output16": In(1),
                "records": In(12),
                "channels": In(12),
                "write8": In(1),
                "write16": In(1),
                "shift8": In(2),
                "shift16": In(2),
                "position": Out(5),
                "epsilon_bit": In(1),
                "filled": Out(1),
                "source": In(GroupSource(config)),
                "row": Out(RowPort()),
                "replay": In(Replay()),
                "groups": In(8 * group_bytes(config)),
                "masks": In(group_bytes(config)),
                "push": Out(1),
                "group": Out(out_layout(config)),
            }
        )

    def row_constants(
        self, m: Module, sums: RowSums, *, ends: Value, taken: Value
    ) -> RowConstants | ConstantsTurns:
        """Makes constants of rows' sums; `factor` and `offset` are those of the row that is loaded.
        ends: a row's last group is there; taken: its constants are not wanted any more."""
        row = self.row
        summed = Signal()
        occupied = Signal()
        final = Signal(reset_less=True)
        with m.If(ends):
            m.d.sync += final.eq(self.source.final)
        with m.If(sums.done):
            m.d.sync += summed.eq(1)
        constants: RowConstants | ConstantsTurns
        if self.config.norm_constants > 1:
            constants = self._in_turns(m, summed, occupied, final, taken)
        else:
            constants = self._one_by_one(m, summed, occupied, final)
        m.submodules.constants = constants
        m.d.comb += [
            constants.total.eq(sums.total),
            constants.squares.eq(sums.squares),
            constants.count.eq(self.channels),
            constants.epsilon_bit.eq(self.epsilon_bit),
            self.position.eq(constants.position),
        ]
        with m.If(row.load):
            m.d.sync += row.ready.eq(0)
        with m.If(taken):
            m.d.sync += occupied.eq(0)
        return constants

    def _one_by_one(
        self, m: Module, summed: Signal, occupied: Signal, final: Signal
    ) -> RowConstants:
        """A row's constants are begun when those of the row before are not `occupied` any more."""
        row = self.row
        constants = RowConstants(self.config)
        computing = Signal()
        m.d.comb += [
            constants.start.eq(summed & ~computing & ~occupied),
            row.free.eq(computing & ~constants.busy),
        ]
        with m.If(constants.start):
            m.d.sync += [summed.eq(0), computing.eq(1), row.final.eq(final)]
        with m.If(row.free):
            m.d.sync += [computing.eq(0), occupied.eq(1), row.ready.eq(1)]
        return constants

    def _in_turns(
        self, m: Module, summed: Signal, occupied: Signal, final: Signal, taken: Value
    ) -> ConstantsTurns:
        """The constants of several rows are made at a time."""
        row = self.row
        constants = ConstantsTurns(self.config)
        m.d.comb += [
            constants.start.eq(summed),
            constants.final.eq(final),
            constants.taken.eq(taken),
            row.free.eq(constants.freed),
        ]
        with m.If(summed & constants.room):
            m.d.sync += summed.eq(0)
        with m.If(constants.ready & ~occupied):
            m.d.sync += [occupied.eq(1), row.ready.eq(1), row.final.eq(constants.row_final)]
        return constants

    def records_walk(self, m: Module) -> tuple[Signal, Signal, Signal]:
        """While the gains are filled: whether a piece of a record is there, which one, and the
        record's channel."""
        config, source = self.config, self.source
        parts = RECORD // group_bytes(config)
        channel = Signal(range(config.norm_length), reset_less=True)
        part = Signal(range(parts), reset_less=True)
        valid = Signal()
        m.d.comb += valid.eq(source.valid & self.fill)
        if config.word_bytes > RECORD:
            # The last word may hold more records than are meant.
            surplus = Signal(reset_less=True)
            with m.If(self.start):
                m.d.sync += surplus.eq(0)
            with m.Elif(valid & (part == parts - 1) & (channel + 1 == self.records)):
                m.d.sync += surplus.eq(1)
            m.d.comb += valid.eq(source.valid & self.fill & ~surplus)
        with m.If(self.start):
            m.d.sync += [channel.eq(0), part.eq(0)]
        with m.Elif(valid):
            m.d.sync += part.eq(part + 1)
            with m.If(part == parts - 1):
                m.d.sync += [part.eq(0), channel.eq(channel + 1)]
        m.d.sync += self.filled.eq(source.valid & self.fill & source.end & source.final)
        return valid, part, channel
