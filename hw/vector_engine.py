"""The vector engine: softmax and norm behind one reader, one ring of rows, and one writer."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, Out, connect, flipped

from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite
from gateformer.hw.norm import Norm
from gateformer.hw.norm_ports import RECORD
from gateformer.hw.softmax import Softmax
from gateformer.hw.vector_ports import (
    EXP_ENTRIES,
    Replay,
    group_bytes,
    norm_hold,
    out_layout,
    row_words,
    softmax_hold,
)
from gateformer.hw.vector_reader import RowReader
from gateformer.hw.vector_row import RowReplay, RowRing
from gateformer.hw.vector_writer import RowWriter
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode


class VectorEngine(Component):
    """Executes SOFTMAX, NORM, EXP_TABLE and NORM_GAIN (spec/isa.py), one at a time.

    Each row is read once: its statistics are computed while its groups go to a ring, and it is
    replayed from there while the next row is read. Rows are pipelined within an instruction, not
    across two. `busy` is 1 while an instruction is worked on. An instruction with a size of 0, or a
    NORM without outputs, ends after five cycles. Lengths are within softmax_length and
    norm_length: the sequencer has checked them.

    Cycles from one row to the next, if memory does not stall: softmax max(length / softmax_lanes +
    3, 51), the length in whole words, where the 51 are its division; norm max(channels *
    norm_interval / norm_lanes + 1, RowConstants.latency + 12), with one output or both.

    For config.multipliers == "dsp"; `VectorProcessor` takes its place without multipliers.
    """

    instructions: Any
    read: Any
    write: Any
    busy: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.VECTOR)),
                "read": Out(LocalRead(config)),
                "write": Out(LocalWrite(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        word_bytes = config.word_bytes
        size = group_bytes(config)
        stream = self.instructions.stream
        fields = stream.payload
        m.submodules.reader = reader = RowReader(config)
        m.submodules.ring = ring = RowRing(
            group_bits=9 * size,
            row_groups=row_words(config) * word_bytes // size,
            family=config.family,
        )
        m.submodules.replay = replay = RowReplay(config)
        m.submodules.softmax = softmax = Softmax(config)
        m.submodules.norm = norm = Norm(config)
        m.submodules.writer = writer = RowWriter(config)
        connect(m, reader.read, flipped(self.read))
        connect(m, writer.write, flipped(self.write))

        # Decoded from the payload, which stays until the instruction is complete: the kind first,
        # then the sizes.
        kinds = {}
        for opcode in (Opcode.SOFTMAX, Opcode.NORM, Opcode.EXP_TABLE, Opcode.NORM_GAIN):
            kinds[opcode] = Signal(name=f"is_{opcode.name.lower()}", reset_less=True)
            m.d.sync += kinds[opcode].eq(fields.opcode == opcode)
        is_softmax, is_norm, is_exp_table, is_norm_gain = kinds.values()
        is_fill = is_exp_table | is_norm_gain

        # The last byte of a row and its word. The records of NORM_GAIN are read
        # as rows of a word.
        last_byte = Signal(13, reset_less=True)
        nothing = Signal(reset_less=True)
        m.d.sync += [
            last_byte.eq(Mux(is_norm, fields.length << 1, fields.length) - 1),
            # Word 1 holds the rows, or the count of entries.
            nothing.eq(
                (fields.rows == 0)
                | ((fields.length == 0) & ~is_fill)
                | (is_norm & ~fields.write8 & ~fields.write16)
            ),
        ]
        last_word = Signal(range(row_words(config)), reset_less=True)
        m.d.sync += last_word.eq(last_byte[(word_bytes - 1).bit_length() :])
        with m.If(is_exp_table):
            m.d.sync += last_word.eq(EXP_ENTRIES // word_bytes - 1)
        with m.If(is_norm_gain):
            m.d.sync += last_word.eq(0)
        records = word_bytes // RECORD
        rows = Mux(is_norm_gain, (fields.count + records - 1) // records, fields.rows)
        holds = (
            (is_softmax, softmax_hold(config)),
            (is_norm, norm_hold(config)),
            (is_exp_table, size),
            (is_norm_gain, 1),
        )
        begin = Signal()
        start = Signal()
        for kind, hold in holds:
            with m.If(kind):
                m.d.comb += [reader.hold.eq(hold - 1), replay.hold.eq(hold - 1)]

        owed = Signal()
        with m.If(reader.row_ended & ~is_fill):
            m.d.sync += owed.eq(1)
        with m.If(softmax.row.free | norm.row.free):
            m.d.sync += owed.eq(0)
        m.d.comb += [
            reader.clear.eq(begin),
            reader.start.eq(start),
            reader.address.eq(fields.source_address),
            reader.stride.eq(fields.source_stride),
            reader.rows.eq(rows),
            reader.single.eq(is_exp_table),
            reader.last_word.eq(last_word),
            reader.last_byte.eq(last_byte),
            reader.codes.eq(is_norm),
            reader.contiguous.eq(is_norm_gain),
            reader.bound.eq(fields.bound),
            reader.grows.eq(fields.causal & is_softmax),
            reader.room.eq(ring.room),
            reader.owed.eq(owed),
            ring.write.eq(reader.source.valid & ~is_fill),
            ring.write_data.eq(Cat(reader.source.group, reader.source.mask)),
            ring.read.eq(replay.replay.go),
            replay.last_word.eq(last_word),
            replay.room.eq(writer.room),
            replay.insert.eq(softmax.insert),
            replay.held_up.eq(softmax.held_up),
            softmax.start.eq(start),
            softmax.fill.eq(is_exp_table),
            softmax.between.eq(replay.between),
            norm.start.eq(start),
            norm.fill.eq(is_norm_gain),
            norm.output16.eq(fields.output16),
            norm.channels.eq(fields.channels),
            norm.records.eq(fields.count),
            norm.write8.eq(fields.write8),
            norm.write16.eq(fields.write16),
            norm.shift8.eq(fields.shift8),
            norm.shift16.eq(fields.shift16),
        ]
        # Seen by the units in the cycle before the ring's data comes.
        replayed = replay.replay
        for stage in range(1, RowRing.LATENCY):
            following = Replay().create(path=(f"replay_{stage}",))
            m.d.sync += [
                getattr(following, name).eq(getattr(replayed, name))
                for name in ("go", "begin", "end", "final")
            ]
            replayed = following
        # Word 7 is the one's numerator and the other's epsilon.
        position = Mux(is_softmax, softmax.position, norm.position)
        parts = [Signal(reset_less=True, name=f"word7_part{i}") for i in range(8)]
        part = Signal(3, reset_less=True)
        word7_bit = Signal(reset_less=True)
        m.d.sync += [
            *(
                parts[i].eq(fields.epsilon[4 * i : 4 * i + 4].bit_select(position[:2], 1))
                for i in range(8)
            ),
            part.eq(position[2:]),
            word7_bit.eq(Cat(parts).bit_select(part, 1)),
        ]
        m.d.comb += [softmax.numerator_bit.eq(word7_bit), norm.epsilon_bit.eq(word7_bit)]
        for unit, is_unit, is_filling in (
            (softmax, is_softmax, is_exp_table),
            (norm, is_norm, is_norm_gain),
        ):
            m.d.comb += [
                unit.source.valid.eq(reader.source.valid & (is_unit | is_filling)),
                unit.source.group.eq(reader.source.group),
                unit.source.mask.eq(reader.source.mask),
                unit.source.end.eq(reader.source.end),
                unit.source.final.eq(reader.source.final),
                unit.row.load.eq(replay.load),
                unit.groups.eq(ring.read_data[: 8 * size]),
                unit.masks.eq(ring.read_data[8 * size :]),
            ]
            m.d.comb += [
                unit.replay.go.eq(replayed.go & is_unit),
                unit.replay.begin.eq(replayed.begin),
                unit.replay.end.eq(replayed.end),
                unit.replay.final.eq(replayed.final),
            ]
        # The other unit is not ready, pushes nothing, and its group is 0.
        group = Signal(out_layout(config))
        m.d.comb += [
            replay.ready.eq(softmax.row.ready | norm.row.ready),
            replay.final.eq(Mux(is_softmax, softmax.row.final, norm.row.final)),
            group.eq(softmax.group.as_value() | norm.group.as_value()),
            writer.push.eq(softmax.push | norm.push),
            writer.group.eq(group),
            writer.address0.eq(fields.target_address),
            writer.stride0.eq(fields.target_stride),
            writer.address1.eq(fields.target16_address),
            writer.stride1.eq(fields.target16_stride),
            writer.single.eq(is_norm),
            writer.start.eq(begin | start),
            writer.channel.eq(start),
        ]
        for channel, width, tail in ((0, 1, writer.tail0), (1, 2, writer.tail1)):
            used = Signal(range(size), name=f"used{channel}")
            m.d.comb += [
                used.eq(fields.channels * width - 1),
                tail.eq(Cat((used >= i) | ~is_norm for i in range(size))),
            ]

        done = writer.done | softmax.filled | norm.filled
        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(stream.valid):
                m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += self.busy.eq(1)
                m.next = "SIZES"
            with m.State("SIZES"):
                m.d.comb += self.busy.eq(1)
                m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += self.busy.eq(1)
                m.next = "START"
            with m.State("START"):
                m.d.comb += self.busy.eq(1)
                with m.If(nothing):
                    m.next = "COMPLETE"
                with m.Else():
                    m.d.sync += begin.eq(1)
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [begin.eq(0), start.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += start.eq(0)
                with m.If(done):
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += [self.busy.eq(1), stream.ready.eq(1)]
                m.next = "IDLE"
        return m
