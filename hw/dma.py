"""The DMA engine: blocks of rows between external and local memory."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from gateformer.hw.dma_beats import BeatReader, BeatWriter
from gateformer.hw.dma_words import LocalWalk, PairAssembler, WordAssembler, WordSplitter
from gateformer.hw.interfaces import (
    DramRead,
    DramWrite,
    FieldPort,
    InstructionPort,
    LocalRead,
    LocalWrite,
    pipelined,
)
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import FORMATS, Engine, Opcode

_ACKNOWLEDGE_BITS = 4
_LOCAL, _DRAM_ADDRESS, _DRAM_STRIDE = (
    FORMATS[Opcode.DMA_LOAD].by_name[name].word
    for name in ("local_address", "dram_address", "dram_stride")
)
"""Words of an instruction."""


class Dma(Component):
    """DMA_LOAD and DMA_STORE: `rows` rows of `words` words each, with a stride on either side.

    window_base, window_size: bytes, stable while the engine works; the base is a multiple of
    word_bytes. DRAM addresses of instructions count from the base. Each row is cut into the longest
    bursts that do not cross a multiple of burst_bytes. Beats are the bytes of words in order,
    lowest first.

    error: 1 for one cycle when a row does not lie within [0, window_size) or does not start at a
    word; nothing of that row is moved and the instruction never completes.
    abort: from its first cycle on no burst is begun any more, until reset; beats still under way to
    local memory are taken and dropped, begun writes are finished. quiet: nothing is outstanding on
    the external port. busy: an instruction is under way.
    With config.dram != "readwrite" there is no `dram_write` and no `read`, and DMA_STORE must not
    come. Without config.prefetch, addresses and strides come through `fields`, word by word.

    Timing: the first burst of a load is offered 7 cycles after the instruction, a further burst
    every 3 cycles and a further row every 7 (9 if the last one ended at a multiple of burst_bytes),
    as long as no more than four bursts of data are under way. So a beat moves every
    cycle when rows have 10 beats or more. The words of a store's burst are read while the burst
    before leaves, then it is offered: local_read_latency + 8 cycles or so more a burst.
    """

    instructions: Any
    fields: Any
    dram_read: wiring.PureInterface
    dram_write: wiring.PureInterface
    read: wiring.PureInterface
    write: wiring.PureInterface
    window_base: Signal
    window_size: Signal
    abort: Signal
    quiet: Signal
    error: Signal
    busy: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.stores = config.dram == "readwrite"
        members: dict[str, Any] = {
            "instructions": Out(InstructionPort(Engine.DMA)),
            "dram_read": Out(DramRead(config)),
            "write": Out(LocalWrite(config)),
            "window_base": In(config.dram_bits),
            "window_size": In(config.dram_bits + 1),
            "abort": In(1),
            "quiet": Out(1),
            "error": Out(1),
            "busy": Out(1),
        }
        if not config.prefetch:
            members["fields"] = Out(FieldPort())
        if self.stores:
            members |= {"dram_write": Out(DramWrite(config)), "read": Out(LocalRead(config))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        stream = self.instructions.stream
        instruction = stream.payload
        byte_bits = exact_log2(config.word_bytes)
        burst_words = config.burst_bytes // config.word_bytes
        burst_bits = exact_log2(burst_words)
        word_beats = config.word_bytes // config.bus_bytes

        storing = Signal()
        m.d.sync += storing.eq(instruction.opcode == Opcode.DMA_STORE if self.stores else 0)
        aborted, dropping = Signal(), Signal()
        m.d.comb += dropping.eq(self.abort | aborted)
        m.d.sync += aborted.eq(dropping)

        # Words of begun bursts that are not gathered yet, or not on their way to the port.
        promised = Signal(burst_bits + 3)
        begins, begun, settled = Signal(), Signal(), Signal()
        m.d.sync += begun.eq(begins)
        # Registers, for external memory is far.
        assembled, split = Signal(), Signal()
        more = Signal(burst_bits)  # words of the burst, less one
        m.d.sync += promised.eq(
            _add(promised, Mux(begun, more, Const(-1, len(promised))), ~settled)
        )
        acknowledges = Signal(_ACKNOWLEDGE_BITS)
        any_promised, ends = Signal(), Signal()
        is_one = Signal()
        if word_beats == 1:
            m.d.comb += is_one.eq(promised == 1)
        else:
            # A cycle early: no word settles in the cycle after another, nor one just promised.
            m.d.sync += is_one.eq((promised == 1) & ~begun)
        m.d.comb += ends.eq(settled & is_one)
        m.d.sync += any_promised.eq(begun | (any_promised & ~ends))

        # The walk through external memory, in words from the window's start (`row`) and from
        # address 0 (`cursor`, and `end` behind the row's last word), with one adder. What a state
        # adds is chosen in the one before. One bit above an address keeps the carry for the check.
        bits = config.dram_bits - byte_bits + 1
        row, cursor, end = (Signal(bits, name=n, reset_less=True) for n in ("row", "cursor", "end"))
        operand, total = Signal(bits, reset_less=True), Signal(bits)
        from_cursor, same, offering = Signal(), Signal(reset_less=True), Signal()
        m.d.sync += from_cursor.eq(0)
        m.d.comb += total.eq(Mux(from_cursor, cursor, row) + operand)
        row_number = Signal(12, reset_less=True)
        low = slice(0, burst_bits)

        m.submodules.local_walk = local_walk = LocalWalk(config)
        m.d.comb += [
            local_walk.words.eq(instruction.words),
            self.busy.eq(1),
        ]
        m.d.sync += self.error.eq(0)
        # Of what comes last through `fields`, or of both.
        bad, bad_address, bad_stride = Signal(), Signal(), Signal()
        if config.prefetch:
            m.d.comb += [
                local_walk.first.eq(instruction.local_address),
                local_walk.stride.eq(instruction.local_stride),
            ]
            m.d.sync += [
                bad_address.eq(self._bad(instruction.dram_address)),
                bad_stride.eq(self._bad(instruction.dram_stride)),
            ]
        else:
            local_stride = Signal(16, reset_less=True)
            m.d.comb += [
                local_walk.first.eq(self.fields.word[:16]),
                local_walk.stride.eq(local_stride),
                bad_address.eq(bad),
                bad_stride.eq(bad),
            ]
        registers = pipelined(config)
        make_assembler: Any = PairAssembler if word_beats == 2 else WordAssembler
        m.submodules.assembler = assembler = (make_assembler if registers else BeatWriter)(config)
        m.d.sync += assembled.eq(assembler.complete)
        under_way = Signal()
        m.d.sync += under_way.eq(any_promised | assembler.word.valid | acknowledges.any())
        reading, asking, read_all = Signal(), Signal(), Signal()
        # What changes long before it is looked at.
        nothing, last_row, aligned, beyond = Signal(), Signal(), Signal(), Signal()
        may_read = Signal()
        many = promised[burst_bits + 1 :].any() | (
            promised[burst_bits] & promised[:burst_bits].any()
        )
        m.d.sync += [
            may_read.eq(~many & ~acknowledges.all()),
            nothing.eq(~(instruction.rows.any() & instruction.words.any())),
            last_row.eq(row_number == instruction.rows),
            aligned.eq(~end[low].any()),
            beyond.eq(self.window_size[byte_bits:] < end),
        ]

        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [row.eq(0), row_number.eq(1)]
                if config.prefetch:
                    m.d.comb += local_walk.load.eq(1)
                    m.d.sync += operand.eq(instruction.dram_address >> byte_bits)
                with m.If(stream.valid & ~dropping):
                    m.next = "START" if config.prefetch else "ADDRESS"
            if not config.prefetch:
                for state, word, following in (
                    ("ADDRESS", _DRAM_ADDRESS, "LOCAL"),
                    ("STRIDE", _DRAM_STRIDE, "TURN"),
                ):
                    with m.State(state):
                        m.d.comb += [self.fields.want.eq(1), self.fields.index.eq(word)]
                        m.d.sync += operand.eq(self.fields.word >> byte_bits)
                        m.d.sync += bad.eq(self._bad(self.fields.word))
                        with m.If(self.fields.valid):
                            m.next = following
                with m.State("LOCAL"):
                    m.d.comb += [self.fields.want.eq(1), self.fields.index.eq(_LOCAL)]
                    m.d.comb += local_walk.load.eq(1)
                    m.d.sync += local_stride.eq(self.fields.word[16:])
                    with m.If(self.fields.valid):
                        m.next = "START"
            with m.State("START"):
                m.d.comb += local_walk.start.eq(1)
                m.d.sync += [row.eq(total), operand.eq(instruction.words)]
                m.next = "CHECK"
                with m.If(nothing):
                    m.next = "DONE"
                with m.Elif(bad_address):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("CHECK"):
                m.d.sync += [end.eq(total), operand.eq(self.window_base >> byte_bits)]
                m.next = "LIMIT"
            with m.State("LIMIT"):
                m.d.sync += [cursor.eq(total), operand.eq(instruction.words), from_cursor.eq(1)]
                m.next = "END"
            with m.State("END"):
                m.d.sync += [end.eq(total), operand.eq(burst_words)]
                m.next = "AIM"
                with m.If(beyond):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("AIM"):
                m.d.sync += same.eq(cursor[burst_bits:] == end[burst_bits:])
                m.next = "CUT"
            with m.State("CUT"):
                # To the end of the row or of the burst, less the words before, less one.
                m.d.sync += more.eq(Mux(same, end[low], 0) + ~cursor[low])
                with m.If(dropping):
                    m.next = "STOP"
                with m.Elif(same & aligned):
                    self._turn(m, operand)
                with m.Elif(~storing & ~promised[-1]):
                    m.d.sync += from_cursor.eq(1)
                    m.next = "OFFER"
                if self.stores:
                    with m.Elif(storing & may_read):
                        m.d.sync += asking.eq(1)
                        m.next = "READ"
            if self.stores:
                with m.State("READ"):
                    m.d.comb += reading.eq(1)
                    with m.If(read_all):
                        m.d.sync += from_cursor.eq(1)
                        m.next = "OFFER"
                        with m.If(dropping):
                            m.next = "STOP"
            with m.State("OFFER"):
                m.d.comb += offering.eq(~begun)
                m.d.sync += from_cursor.eq(~begun)
                with m.If(begun):
                    m.d.sync += cursor.eq(Cat(Const(0, burst_bits), total[burst_bits:]))
                    m.next = "AIM"
                    with m.If(same):
                        self._turn(m, operand)
            with m.State("TURN"):
                m.d.sync += [row.eq(total), row_number.eq(row_number + 1)]
                m.d.sync += operand.eq(instruction.words)
                m.next = "CHECK"
                with m.If(last_row):
                    m.next = "DRAIN"
                with m.Elif(bad_stride):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("DRAIN"), m.If(~under_way):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += stream.ready.eq(1)
                m.next = "IDLE"
            with m.State("STOP"):
                m.d.comb += self.busy.eq(0)

        burst = self.dram_read.burst
        m.d.comb += [
            burst.valid.eq(offering & ~storing),
            burst.payload.address.eq(cursor << byte_bits),
            burst.payload.beats.eq((more + 1) * word_beats),
            self.quiet.eq(~(offering | begun | any_promised | acknowledges.any())),
            assembler.beat.valid.eq(self.dram_read.data.valid),
            assembler.beat.payload.eq(self.dram_read.data.payload),
            self.dram_read.data.ready.eq(assembler.beat.ready),
            assembler.drop.eq(aborted),
            self.write.request.valid.eq(assembler.word.valid),
            self.write.request.payload.address.eq(local_walk.address),
            self.write.request.payload.data.eq(assembler.word.payload),
            self.write.request.payload.mask.eq(assembler.mask),
            assembler.word.ready.eq(self.write.request.ready),
        ]
        written = self.write.request.valid & self.write.request.ready & assembler.word_ends
        stepped = Signal()
        if registers and word_beats > 2:
            # The next word comes later than in the next cycle.
            m.d.sync += local_walk.step.eq(stepped)
        else:
            m.d.comb += local_walk.step.eq(stepped)
        if not self.stores:
            m.d.comb += [
                begins.eq(offering & burst.ready),
                settled.eq(assembled),
                stepped.eq(written),
            ]
            return m

        make_splitter: Any = WordSplitter if registers else BeatReader
        m.submodules.splitter = splitter = make_splitter(config, words=2 * burst_words)
        read_number = Signal(burst_bits)
        word_asked = splitter.asked & splitter.word_ends
        with m.If(~reading):
            m.d.sync += read_number.eq(0)
        with m.Elif(word_asked):
            m.d.sync += [read_number.eq(read_number + 1), asking.eq(read_number != more)]
        m.d.comb += [
            read_all.eq(~asking & ~splitter.filling),
            self.read.request.valid.eq(asking & splitter.pace),
            self.read.request.payload.eq(local_walk.address),
            splitter.asked.eq(self.read.request.valid & self.read.request.ready),
            splitter.word_valid.eq(self.read.response_valid),
            splitter.word.eq(self.read.response),
            splitter.enable.eq(storing & any_promised & ~ends),
            self.dram_write.data.valid.eq(splitter.beat.valid),
            self.dram_write.data.payload.eq(splitter.beat.payload),
            splitter.beat.ready.eq(self.dram_write.data.ready),
            stepped.eq(written | word_asked),
            begins.eq(offering & Mux(storing, self.dram_write.burst.ready, burst.ready)),
            settled.eq(assembled | split),
            self.dram_write.burst.valid.eq(offering & storing),
            self.dram_write.burst.payload.eq(burst.payload),
            self.dram_write.acknowledge.ready.eq(1),
        ]
        m.d.sync += split.eq(splitter.complete)
        writes = begun & storing
        with m.If(writes != self.dram_write.acknowledge.valid):
            m.d.sync += acknowledges.eq(_add(acknowledges, ~writes.replicate(4), writes))
        return m

    def _turn(self, m: Module, operand: Signal) -> None:
        """On to the next row, for which the stride is added."""
        if self.config.prefetch:
            stride = self.instructions.stream.payload.dram_stride
            m.d.sync += operand.eq(stride >> exact_log2(self.config.word_bytes))
            m.next = "TURN"
        else:
            m.next = "STRIDE"

    def _bad(self, address: Value) -> Value:
        """Whether a byte address or a distance is not that of a word in external memory."""
        byte_bits = exact_log2(self.config.word_bytes)
        return address[:byte_bits].any() | address[self.config.dram_bits :].any()


def _add(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry in the width of a, as one adder with a carry in."""
    return (Cat(Const(1, 1), a) + Cat(carry, b))[1 : len(a) + 1]
