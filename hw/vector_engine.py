"""The vector engine: softmax and norm behind one read port and one write port."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, Out, connect, flipped

from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite
from gateformer.hw.norm import Norm
from gateformer.hw.softmax import Softmax
from gateformer.hw.vector_reader import RowReader
from gateformer.hw.vector_writer import RowWriter
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode


class VectorEngine(Component):
    """Executes SOFTMAX, NORM, EXP_TABLE and NORM_GAIN (spec/isa.py), one at a time.

    Rows are pipelined within an instruction, not across two. `busy` is 1 while an instruction is
    worked on. An instruction with a size of 0, or a NORM without outputs, ends after three cycles.
    Lengths are within softmax_length and norm_length: the sequencer has checked them.

    Sustained cycles a row, if memory never stalls: softmax ceil(length / word_bytes) * word_bytes /
    softmax_lanes, at least about 37 (its division); norm ceil(2 * channels / word_bytes) *
    word_bytes / 2 / norm_lanes, at least about RowConstants.latency + 25.
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
        stream = self.instructions.stream
        fields = stream.payload
        m.submodules.reader = reader = RowReader(config)
        m.submodules.writer = writer = RowWriter(config)
        m.submodules.softmax = softmax = Softmax(config)
        m.submodules.norm = norm = Norm(config)
        connect(m, reader.read, flipped(self.read))
        connect(m, writer.write, flipped(self.write))

        # Decoded from the payload, which stays until the instruction is complete: the kind first,
        # then the sizes.
        is_softmax = Signal()
        is_norm = Signal()
        is_exp_table = Signal()
        is_norm_gain = Signal()
        for_norm = Signal()
        is_fill = Signal()
        m.d.sync += [
            is_softmax.eq(fields.opcode == Opcode.SOFTMAX),
            is_norm.eq(fields.opcode == Opcode.NORM),
            is_exp_table.eq(fields.opcode == Opcode.EXP_TABLE),
            is_norm_gain.eq(fields.opcode == Opcode.NORM_GAIN),
            for_norm.eq((fields.opcode == Opcode.NORM) | (fields.opcode == Opcode.NORM_GAIN)),
            is_fill.eq((fields.opcode == Opcode.EXP_TABLE) | (fields.opcode == Opcode.NORM_GAIN)),
        ]

        # Bytes of a row, words of a row (rounded up), and cycles for which a word stays.
        row_bytes = Signal(15)
        words = Signal(12, reset_less=True)
        nothing = Signal(reset_less=True)
        with m.If(is_softmax):
            m.d.comb += row_bytes.eq(fields.length)
        with m.Elif(is_norm):
            m.d.comb += row_bytes.eq(fields.channels << 1)
        with m.Elif(is_exp_table):
            m.d.comb += row_bytes.eq(fields.count)
        with m.Else():
            m.d.comb += row_bytes.eq(fields.count << 3)
        m.d.sync += [
            words.eq((row_bytes + (word_bytes - 1)) >> (word_bytes.bit_length() - 1)),
            # Word 1 holds the rows, or the count of entries.
            nothing.eq(
                (fields.rows == 0) | (row_bytes == 0) | (is_norm & ~fields.write8 & ~fields.write16)
            ),
        ]
        with m.If(is_softmax):
            m.d.comb += reader.last_step.eq(word_bytes // config.softmax_lanes - 1)
        with m.Elif(is_norm):
            m.d.comb += reader.last_step.eq(word_bytes // 2 // config.norm_lanes - 1)
        with m.Elif(is_exp_table):
            m.d.comb += reader.last_step.eq(word_bytes - 1)
        with m.Else():
            m.d.comb += reader.last_step.eq(word_bytes // 8 - 1)

        start = Signal()
        m.d.comb += [
            reader.start.eq(start),
            reader.address.eq(fields.source_address),
            reader.stride.eq(fields.source_stride),
            reader.rows.eq(Mux(is_fill, 1, fields.rows)),
            reader.words.eq(words),
            writer.start.eq(start),
            writer.address0.eq(fields.target_address),
            writer.stride0.eq(fields.target_stride),
            writer.address1.eq(fields.target16_address),
            writer.stride1.eq(fields.target16_stride),
            softmax.start.eq(start & ~for_norm),
            softmax.fill.eq(is_exp_table),
            softmax.rows.eq(fields.rows),
            softmax.words.eq(words),
            softmax.length.eq(fields.length),
            softmax.bound.eq(fields.bound),
            softmax.causal.eq(fields.causal),
            softmax.numerator.eq(fields.numerator),
            norm.start.eq(start & for_norm),
            norm.fill.eq(is_norm_gain),
            norm.output16.eq(fields.output16),
            norm.rows.eq(fields.rows),
            norm.words.eq(words),
            norm.channels.eq(fields.channels),
            norm.epsilon.eq(fields.epsilon),
            norm.write8.eq(fields.write8),
            norm.write16.eq(fields.write16),
            norm.shift8.eq(fields.shift8),
            norm.shift16.eq(fields.shift16),
        ]

        # The unit at work has the reader and the writer.
        source, sink = reader.source, writer.sink
        for unit, chosen in ((softmax, ~for_norm), (norm, for_norm)):
            m.d.comb += [
                unit.source.valid.eq(source.valid & chosen),
                unit.source.word.eq(source.word),
                unit.source.step.eq(source.step),
                unit.source.last.eq(source.last),
                unit.source.issue.eq(source.issue & chosen),
                unit.source.issue_last.eq(source.issue_last & chosen),
                unit.sink.room.eq(sink.room),
            ]
            with m.If(chosen):
                m.d.comb += [
                    source.allow.eq(unit.source.allow),
                    source.allow_last.eq(unit.source.allow_last),
                    sink.reserve.eq(unit.sink.reserve),
                    sink.push.eq(unit.sink.push),
                    sink.channel.eq(unit.sink.channel),
                    sink.data.eq(unit.sink.data),
                    sink.mask.eq(unit.sink.mask),
                    sink.next_word.eq(unit.sink.next_word),
                    sink.next_row.eq(unit.sink.next_row),
                ]

        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(stream.valid):
                m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += self.busy.eq(1)
                m.next = "START"
            with m.State("START"):
                with m.If(nothing):
                    m.next = "COMPLETE"
                with m.Else():
                    m.d.comb += start.eq(1)
                    m.next = "RUN"
                m.d.comb += self.busy.eq(1)
            with m.State("RUN"):
                m.d.comb += self.busy.eq(1)
                with m.If(reader.idle & writer.empty & softmax.done & norm.done):
                    m.next = "COMPLETE"
            with m.State("COMPLETE"):
                m.d.comb += [self.busy.eq(1), stream.ready.eq(1)]
                m.next = "IDLE"
        return m
