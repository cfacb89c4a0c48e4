"""Between the words of local memory and the beats of the external port."""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.countdown import CountDown
from gateformer.hw.dma_beats import BeatBuffer
from gateformer.hw.dma_ports import GatherPorts, SplitPorts
from gateformer.hw.interfaces import local_read_latency
from gateformer.hw.stream_register import StreamRegister
from gateformer.spec.config import AcceleratorConfig


class LocalWalk(Component):
    """The addresses of a block in local memory: `address` moves on with every `step`.

    While `load`, the block is taken in; `start`, after a cycle of `load`, goes to its first word.
    """

    words: Signal
    first: Signal
    stride: Signal
    load: Signal
    start: Signal
    step: Signal
    address: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "words": In(12),
                "first": In(16),
                "stride": In(16),
                "load": In(1),
                "start": In(1),
                "step": In(1),
                "address": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = Signal(16, reset_less=True)
        new_row, last = Signal(), Signal()
        words = CountDown(
            m,
            self.config,
            total=self.words,
            step=1,
            load=self.start | last,
            advance=self.start | self.step,
            name="words",
        )
        m.d.comb += [last.eq(words.last), new_row.eq(self.start | (self.step & last))]
        with m.If(self.load | new_row):
            m.d.sync += row.eq(Mux(self.load, self.first, row + self.stride))
        with m.If(self.start | self.step):
            m.d.sync += self.address.eq(Mux(self.start | last, row, self.address + 1))
        return m


class WordAssembler(GatherPorts):
    """Through registers: a beat a cycle when words leave at once."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full = Signal()
        word = Signal.like(self.word.payload, reset_less=True)
        last = Signal()
        m.d.comb += [
            self.word.valid.eq(full),
            self.word.payload.eq(word),
            self.mask.eq(Const(-1, len(self.mask))),
            self.word_ends.eq(1),
            self.complete.eq(self.beat.valid & self.beat.ready & last),
        ]
        with m.If(self.word.ready):
            m.d.sync += full.eq(0)
        if self.beats == 1:
            with m.If(self.complete & ~self.drop):
                m.d.sync += full.eq(1)
            m.d.comb += [last.eq(1), self.beat.ready.eq(self.drop | ~full | self.word.ready)]
            with m.If(self.complete & ~self.drop):
                m.d.sync += word.eq(self.beat.payload)
            return m
        # A word has several cycles to leave while the next one gathers: `ready` needs no path from
        # the arbiter, and the word moves on in the cycle after its last beat.
        place = Signal(self.beats, init=1)
        gathered = Signal(len(word), reset_less=True)
        moves = Signal()
        m.d.sync += moves.eq(self.beat.valid & last & ~full & ~self.drop)
        m.d.comb += [
            last.eq(place[-1]),
            self.beat.ready.eq(self.drop | ~last | ~full),
        ]
        with m.If(self.beat.valid & self.beat.ready):
            m.d.sync += place.eq(place.rotate_left(1))
            m.d.sync += gathered.eq(Cat(gathered, self.beat.payload)[len(self.beat.payload) :])
        with m.If(moves):
            m.d.sync += [word.eq(gathered), full.eq(1)]
        return m


class PairAssembler(GatherPorts):
    """`WordAssembler` for words of two beats. Two cycles are too few for a word to leave where
    local memory takes it a cycle late, so another one can wait behind it."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        second = Signal()
        low = Signal.like(self.beat.payload, reset_less=True)
        m.submodules.leaving = leaving = StreamRegister(len(self.word.payload))
        connect(m, leaving.output, flipped(self.word))
        m.d.comb += [
            leaving.input.valid.eq(self.beat.valid & second & ~self.drop),
            leaving.input.payload.eq(Cat(low, self.beat.payload)),
            self.beat.ready.eq(self.drop | ~second | leaving.input.ready),
            self.mask.eq(Const(-1, len(self.mask))),
            self.word_ends.eq(1),
            self.complete.eq(self.beat.valid & self.beat.ready & second),
        ]
        with m.If(self.beat.valid & self.beat.ready):
            m.d.sync += second.eq(~second)
            with m.If(~second):
                m.d.sync += low.eq(self.beat.payload)
        return m


class WordSplitter(SplitPorts):
    """Through registers: words are asked for at the pace of their beats."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.beat.payload)
        m.submodules.buffer = buffer = BeatBuffer(self.config, words=self.words)
        connect(m, buffer.beat, flipped(self.beat))
        # Words are spaced so that each is pushed, beat by beat, before the next one comes.
        coming = Signal(local_read_latency(self.config) + self.beats)
        filling = Signal()
        pushes = Signal(self.beats)
        m.d.sync += [
            coming.eq(Cat(self.asked, coming)),
            pushes.eq(Cat(self.word_valid, pushes)),
            filling.eq(self.asked | coming[:-1].any()),
        ]
        if self.beats == 1:
            m.d.comb += self.pace.eq(1)
        else:
            pace = Signal()
            # A cycle early where that is safe: local memory takes no request in its first cycle.
            m.d.sync += pace.eq(~(self.asked | coming[: max(self.beats - 3, 0)].any()))
            m.d.comb += self.pace.eq(pace)
        # Each part of a word waits for its turn in registers of its own, which hold 0 before and
        # after it, so that an OR joins them.
        parts = []
        for i in range(self.beats):
            part = Mux(self.word_valid, self.word.word_select(i, width), 0)
            for stage in range(i + 1):
                delayed = Signal(width, name=f"part_{i}_{stage}", reset_less=True)
                m.d.sync += delayed.eq(part)
                part = delayed
            parts.append(part)
        m.d.comb += [
            self.filling.eq(filling),
            buffer.data.eq(reduce(or_, parts)),
            buffer.push.eq(pushes.any()),
            buffer.enable.eq(self.enable),
            self.complete.eq(buffer.complete),
            self.word_ends.eq(1),
        ]
        return m
