"""The DMA engine: blocks of rows between external and local memory."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from gateformer.hw.interfaces import DramRead, DramWrite, InstructionPort, LocalRead, LocalWrite
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode

_ACKNOWLEDGE_BITS = 4


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
    come.

    Timing: the first burst is offered 6 cycles after the instruction, a further burst every 3
    cycles and a further row every 6 as far as data keeps up, so a beat moves every cycle when rows
    have 6 beats or more. Up to four full bursts are read ahead; a store reads two bursts ahead.
    """

    instructions: wiring.PureInterface
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
            "window_base": In(32),
            "window_size": In(32),
            "abort": In(1),
            "quiet": Out(1),
            "error": Out(1),
            "busy": Out(1),
        }
        if self.stores:
            members |= {"dram_write": Out(DramWrite(config)), "read": Out(LocalRead(config))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        instruction = self.instructions.stream.payload
        byte_bits = exact_log2(config.word_bytes)
        burst_words = config.burst_bytes // config.word_bytes
        word_beats = config.word_bytes // config.bus_bytes
        ahead = max(2 * burst_words, 8)

        storing = Signal()
        m.d.comb += storing.eq(instruction.opcode == Opcode.DMA_STORE if self.stores else 0)
        aborted = Signal()
        dropping = Signal()
        m.d.comb += dropping.eq(self.abort | aborted)
        m.d.sync += aborted.eq(dropping)

        # Between the two walkers: `arrived`, a word came in from where it is copied from;
        # `settled`, a word of a begun burst crossed the external port.
        arrived = Signal()
        settled = Signal()
        funded = Signal()
        taken = Signal()
        more = Signal(exact_log2(burst_words))  # words of the burst, less one
        acknowledges = Signal(_ACKNOWLEDGE_BITS)

        # Words that a burst may move now. Loads start with the words that may be under way, stores
        # with none; either way a burst takes its words out and an arriving word adds one.
        budget = Signal(range(2 * ahead + 1), reset_less=True)
        # Words of begun bursts that have not crossed the external port.
        promised = Signal(range(2 * ahead + 1))
        minus_words = Cat(~more, Const(-1, len(budget)))[: len(budget)]
        m.d.sync += [
            budget.eq(_add(budget, Mux(funded, minus_words, 0), arrived)),
            promised.eq(_add(promised, Mux(taken, more, Const(-1, len(promised))), ~settled)),
        ]

        # The walk through external memory, in words from the window's start (`row`) and from
        # address 0 (`cursor`). One bit above an address keeps the carry for the check.
        bits = 32 - byte_bits + 1
        row = Signal(bits, reset_less=True)
        cursor = Signal(bits, reset_less=True)
        rows_left = Signal(12, reset_less=True)
        left = Signal(12, reset_less=True)  # words left in the row, less one
        row_done = Signal(reset_less=True)
        operand = Signal(bits)
        offering = Signal()
        total = Signal(bits)
        m.d.comb += total.eq(_add(Mux(offering, cursor, row), operand, offering))
        room = ~cursor[: len(more)]  # words up to the next multiple of burst_bytes, less one
        short = Signal()
        m.d.comb += short.eq(~left[len(more) :].any() & (left[: len(more)] <= room))
        left_next = Signal(12)
        loading_left = Signal()
        m.d.comb += left_next.eq(
            Mux(loading_left, instruction.words, left)
            + Mux(loading_left, Const(-1, 12), Cat(~more, Const(-1, 12))[:12])
        )
        affordable = (budget > more) & ~acknowledges.all()
        m.submodules.local_walk = local_walk = _LocalWalk()
        m.d.comb += [
            local_walk.rows.eq(instruction.rows),
            local_walk.words.eq(instruction.words),
            local_walk.first.eq(instruction.local_address),
            local_walk.stride.eq(instruction.local_stride),
            self.busy.eq(1),
        ]
        m.d.sync += self.error.eq(0)

        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), local_walk.load.eq(1)]
                m.d.sync += [
                    row.eq(0),
                    rows_left.eq(instruction.rows),
                    budget.eq(Mux(storing, 0, 2 * ahead)),
                ]
                with m.If(self.instructions.stream.valid & ~dropping):
                    with m.If(instruction.rows.any() & instruction.words.any()):
                        m.d.comb += local_walk.start.eq(1)
                        m.next = "START"
                    with m.Else():
                        m.next = "DONE"
            with m.State("START"):
                m.d.comb += operand.eq(instruction.dram_address >> byte_bits)
                m.d.sync += row.eq(total)
                m.next = "CHECK"
                with m.If(instruction.dram_address[:byte_bits].any()):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("CHECK"):
                m.d.comb += operand.eq(instruction.words)
                m.d.sync += cursor.eq(total)
                m.next = "LIMIT"
            with m.State("LIMIT"):
                m.d.comb += [operand.eq(self.window_base >> byte_bits), loading_left.eq(1)]
                m.d.sync += [cursor.eq(total), left.eq(left_next)]
                m.next = "CUT"
                with m.If(cursor > self.window_size[byte_bits:]):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("CUT"):
                m.d.sync += [more.eq(Mux(short, left, room)), row_done.eq(short)]
                m.next = "FUND"
            with m.State("FUND"):
                with m.If(dropping):
                    m.next = "STOP"
                with m.Elif(affordable):
                    m.d.comb += funded.eq(1)
                    m.d.sync += left.eq(left_next)
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [offering.eq(1), operand.eq(more)]
                with m.If(taken):
                    m.d.sync += cursor.eq(total)
                    m.next = "CUT"
                    with m.If(row_done):
                        m.next = "STEP"
                        with m.If(rows_left == 1):
                            m.next = "DRAIN"
            with m.State("STEP"):
                m.d.comb += operand.eq(instruction.dram_stride >> byte_bits)
                m.d.sync += [row.eq(total), rows_left.eq(rows_left - 1)]
                m.next = "CHECK"
                with m.If(instruction.dram_stride[:byte_bits].any()):
                    m.d.sync += self.error.eq(1)
                    m.next = "STOP"
            with m.State("DRAIN"), m.If(~local_walk.walking & ~acknowledges.any()):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.instructions.stream.ready.eq(1)
                m.next = "IDLE"
            with m.State("STOP"):
                m.d.comb += self.busy.eq(0)

        burst = self.dram_read.burst
        m.d.comb += [
            burst.valid.eq(offering & ~storing),
            burst.payload.address.eq(cursor << byte_bits),
            burst.payload.beats.eq((more + 1) * word_beats),
            taken.eq(
                offering
                & (
                    Mux(storing, self.dram_write.burst.ready, burst.ready)
                    if self.stores
                    else burst.ready
                )
            ),
            self.quiet.eq(~offering & ~promised.any() & ~acknowledges.any()),
        ]

        m.submodules.assembler = assembler = _WordAssembler(config)
        m.d.comb += [
            assembler.beat.valid.eq(self.dram_read.data.valid),
            assembler.beat.payload.eq(self.dram_read.data.payload),
            self.dram_read.data.ready.eq(assembler.beat.ready),
            assembler.drop.eq(dropping),
            self.write.request.valid.eq(assembler.word.valid),
            self.write.request.payload.address.eq(local_walk.address),
            self.write.request.payload.data.eq(assembler.word.payload),
            self.write.request.payload.mask.eq(Const(-1, config.word_bytes)),
            assembler.word.ready.eq(self.write.request.ready),
        ]
        written = self.write.request.valid & self.write.request.ready
        if not self.stores:
            m.d.comb += [
                arrived.eq(assembler.complete),
                settled.eq(assembler.complete),
                local_walk.step.eq(written),
            ]
            return m

        m.submodules.splitter = splitter = _WordSplitter(config, words=ahead)
        m.d.comb += [
            self.read.request.valid.eq(storing & local_walk.walking & splitter.room),
            self.read.request.payload.eq(local_walk.address),
            splitter.asked.eq(self.read.request.valid & self.read.request.ready),
            splitter.word_valid.eq(self.read.response_valid),
            splitter.word.eq(self.read.response),
            splitter.enable.eq(storing & promised.any()),
            self.dram_write.data.valid.eq(splitter.beat.valid),
            self.dram_write.data.payload.eq(splitter.beat.payload),
            splitter.beat.ready.eq(self.dram_write.data.ready),
            local_walk.step.eq(written | splitter.asked),
            arrived.eq(assembler.complete | self.read.response_valid),
            settled.eq(assembler.complete | splitter.complete),
            self.dram_write.burst.valid.eq(offering & storing),
            self.dram_write.burst.payload.eq(burst.payload),
            self.dram_write.acknowledge.ready.eq(1),
        ]
        begun = taken & storing
        acknowledged = self.dram_write.acknowledge.valid
        with m.If(begun != acknowledged):
            m.d.sync += acknowledges.eq(_add(acknowledges, acknowledged.replicate(4), begun))
        return m


class _LocalWalk(Component):
    """The addresses of a block in local memory: `address` moves on with every `step`.

    load: takes in the block; start: the walk begins in the next cycle. walking: 1 until the last
    step.
    """

    rows: Signal
    words: Signal
    first: Signal
    stride: Signal
    load: Signal
    start: Signal
    step: Signal
    address: Signal
    walking: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "rows": In(12),
                "words": In(12),
                "first": In(16),
                "stride": In(16),
                "load": In(1),
                "start": In(1),
                "step": In(1),
                "address": Out(16),
                "walking": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = Signal(16, reset_less=True)
        next_row = Signal(16)
        address = Signal(16, reset_less=True)
        rows_left = Signal(12, reset_less=True)
        words_left = Signal(12, reset_less=True)
        row_ends = Signal()
        m.d.comb += [
            next_row.eq(Mux(self.load, self.first, row + self.stride)),
            row_ends.eq(words_left == 1),
            self.address.eq(address),
        ]
        with m.If(self.load | (self.step & row_ends)):
            m.d.sync += [
                row.eq(next_row),
                rows_left.eq(Mux(self.load, self.rows, rows_left - 1)),
            ]
        with m.If(self.load | self.step):
            new_row = self.load | row_ends
            m.d.sync += [
                address.eq(Mux(new_row, next_row, address + 1)),
                words_left.eq(Mux(new_row, self.words, words_left - 1)),
            ]
        with m.If(self.start):
            m.d.sync += self.walking.eq(1)
        with m.Elif(self.step & row_ends & (rows_left == 1)):
            m.d.sync += self.walking.eq(0)
        return m


class _WordAssembler(Component):
    """Beats in, words out, the first beat lowest; a beat a cycle when words leave at once.

    complete: the last beat of a word is taken in this cycle. drop: beats are taken, words vanish.
    """

    beat: stream.Interface
    word: stream.Interface
    complete: Signal
    drop: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.beats = config.word_bytes // config.bus_bytes
        bits = 8 * config.word_bytes
        super().__init__(
            {
                "beat": In(stream.Signature(8 * config.bus_bytes)),
                "word": Out(stream.Signature(bits)),
                "complete": Out(1),
                "drop": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full = Signal()
        word = Signal.like(self.word.payload, reset_less=True)
        last = Signal()
        m.d.comb += [
            self.word.valid.eq(full),
            self.word.payload.eq(word),
            self.complete.eq(self.beat.valid & self.beat.ready & last),
        ]
        with m.If(self.word.ready):
            m.d.sync += full.eq(0)
        with m.If(self.complete & ~self.drop):
            m.d.sync += full.eq(1)
        if self.beats == 1:
            m.d.comb += [last.eq(1), self.beat.ready.eq(self.drop | ~full | self.word.ready)]
            with m.If(self.complete & ~self.drop):
                m.d.sync += word.eq(self.beat.payload)
            return m
        # A word has several cycles to leave while the next one gathers: `ready` needs no path from
        # the arbiter.
        count = Signal(range(self.beats))
        gathered = Signal(len(word) - len(self.beat.payload), reset_less=True)
        joined = Cat(gathered, self.beat.payload)
        m.d.comb += [
            last.eq(count.all()),
            self.beat.ready.eq(self.drop | ~last | ~full),
        ]
        with m.If(self.beat.valid & self.beat.ready):
            m.d.sync += [count.eq(count + 1), gathered.eq(joined[len(self.beat.payload) :])]
        with m.If(self.complete & ~self.drop):
            m.d.sync += word.eq(joined)
        return m


class _WordSplitter(Component):
    """Words in, beats out, through a buffer of `words` words.

    room: a word may be asked for; asked: one is, and comes `word_valid` later, never refused.
    enable: the word in front may leave; complete: its last beat leaves in this cycle.
    """

    room: Signal
    asked: Signal
    word_valid: Signal
    word: Signal
    beat: stream.Interface
    enable: Signal
    complete: Signal

    def __init__(self, config: AcceleratorConfig, *, words: int) -> None:
        self.depth = words
        self.beats = config.word_bytes // config.bus_bytes
        super().__init__(
            {
                "room": Out(1),
                "asked": In(1),
                "word_valid": In(1),
                "word": In(8 * config.word_bytes),
                "beat": Out(stream.Signature(8 * config.bus_bytes)),
                "enable": In(1),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.beat.payload)
        depth = self.depth * self.beats
        m.submodules.buffer = buffer = Memory(
            shape=width, depth=depth, init=[], attrs={"no_rw_check": 1}
        )
        push = buffer.write_port()
        pull = buffer.read_port()
        head = Signal(range(2 * depth))
        tail = Signal(range(2 * depth))

        # Asking: free words are counted, and words are spaced so that each is pushed in time.
        free = Signal(range(self.depth + 1), init=self.depth)
        m.d.sync += free.eq(_add(free, self.asked.replicate(len(free)), self.complete))
        if self.beats == 1:
            m.d.comb += [
                self.room.eq(free.any()),
                push.data.eq(self.word),
                push.en.eq(self.word_valid),
            ]
        else:
            pause = Signal(range(self.beats))
            with m.If(self.asked):
                m.d.sync += pause.eq(self.beats - 1)
            with m.Elif(pause.any()):
                m.d.sync += pause.eq(pause - 1)
            rest = Signal(len(self.word), reset_less=True)
            count = Signal(range(self.beats + 1))
            m.d.comb += [
                self.room.eq(free.any() & ~pause.any()),
                push.data.eq(rest[:width]),
                push.en.eq(count.any()),
            ]
            m.d.sync += rest.eq(Mux(self.word_valid, self.word, rest >> width))
            with m.If(self.word_valid):
                m.d.sync += count.eq(self.beats)
            with m.Elif(count.any()):
                m.d.sync += count.eq(count - 1)
        m.d.comb += push.addr.eq(head)
        with m.If(push.en):
            m.d.sync += head.eq(head + 1)

        # The RAM's own latch and a register behind it: two stages that wait on their own. An
        # address is read only after it was written, and free words keep the writes off the unread.
        latched = Signal()
        valid = Signal()
        output = Signal(width, reset_less=True)
        leaves = self.beat.valid & self.beat.ready
        accepts = ~valid | leaves
        fetch = (~latched | accepts) & (head != tail)
        m.d.comb += [
            pull.addr.eq(tail),
            pull.en.eq(fetch),
            self.beat.valid.eq(valid & self.enable),
            self.beat.payload.eq(output),
        ]
        with m.If(fetch):
            m.d.sync += tail.eq(tail + 1)
        with m.If(accepts):
            m.d.sync += [latched.eq(fetch), valid.eq(latched), output.eq(pull.data)]
        with m.Elif(fetch):
            m.d.sync += latched.eq(1)
        if self.beats == 1:
            m.d.comb += self.complete.eq(leaves)
        else:
            left = Signal(range(self.beats))
            m.d.comb += self.complete.eq(leaves & left.all())
            with m.If(leaves):
                m.d.sync += left.eq(left + 1)
        return m


def _add(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry in the width of a, as one adder with a carry in."""
    return (Cat(Const(1, 1), a) + Cat(carry, b))[1 : len(a) + 1]
