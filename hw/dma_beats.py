"""The external port's beats: their buffer, and a way from and to local memory without registers."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.interfaces import local_read_latency, pipelined
from gateformer.spec.config import AcceleratorConfig


class BeatBuffer(Component):
    """The beats of `words` words, in the order in which they are pushed; never is it overfilled.

    push: `data` is the next beat. enable: the word in front may leave; complete: its last beat
    leaves in this cycle. A beat can leave four cycles after it was pushed, one earlier where not
    pipelined(config).
    """

    push: Signal
    data: Signal
    beat: stream.Interface
    enable: Signal
    complete: Signal

    def __init__(self, config: AcceleratorConfig, *, words: int) -> None:
        self.beats = config.word_bytes // config.bus_bytes
        self.depth = words * self.beats
        self.registered = pipelined(config)
        super().__init__(
            {
                "push": In(1),
                "data": In(8 * config.bus_bytes),
                "beat": Out(stream.Signature(8 * config.bus_bytes)),
                "enable": In(1),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=len(self.data), depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        push, pull = memory.write_port(), memory.read_port()
        head, tail = Signal(range(2 * self.depth)), Signal(range(2 * self.depth))
        m.d.comb += [push.addr.eq(head), push.data.eq(self.data), push.en.eq(self.push)]
        with m.If(self.push):
            m.d.sync += head.eq(head + 1)

        # An address is read only after it was written.
        leaves, fetch, valid = Signal(), Signal(), Signal()
        m.d.comb += [
            pull.addr.eq(tail),
            pull.en.eq(fetch),
            self.beat.valid.eq(valid & self.enable),
            leaves.eq(self.beat.valid & self.beat.ready),
        ]
        with m.If(fetch):
            m.d.sync += tail.eq(tail + 1)
        accepts = ~valid | leaves
        if self.registered:
            # The RAM's own latch and a register behind it: two stages that wait on their own.
            latched = Signal()
            output = Signal.like(self.data, reset_less=True)
            m.d.comb += [
                fetch.eq((~latched | accepts) & (head != tail)),
                self.beat.payload.eq(output),
            ]
            with m.If(accepts):
                m.d.sync += [latched.eq(fetch), valid.eq(latched), output.eq(pull.data)]
            with m.Elif(fetch):
                m.d.sync += latched.eq(1)
        else:
            m.d.comb += [fetch.eq(accepts & (head != tail)), self.beat.payload.eq(pull.data)]
            with m.If(accepts):
                m.d.sync += valid.eq(fetch)
        if self.beats == 1:
            m.d.comb += self.complete.eq(leaves)
        else:
            left = Signal(range(self.beats))
            m.d.comb += self.complete.eq(leaves & left.all())
            with m.If(leaves):
                m.d.sync += left.eq(left + 1)
        return m


class BeatWriter(Component):
    """`WordAssembler` without a register: each beat is a write of some bytes of a word, taken by
    local memory in the cycle in which it comes."""

    beat: stream.Interface
    word: stream.Interface
    mask: Signal
    word_ends: Signal
    complete: Signal
    drop: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "beat": In(stream.Signature(8 * config.bus_bytes)),
                "word": Out(stream.Signature(8 * config.word_bytes)),
                "mask": Out(config.word_bytes),
                "word_ends": Out(1),
                "complete": Out(1),
                "drop": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bytes = self.config.bus_bytes
        beats = self.config.word_bytes // bus_bytes
        place = Signal(range(beats))
        m.d.comb += [
            self.word.valid.eq(self.beat.valid & ~self.drop),
            self.word.payload.eq(self.beat.payload.replicate(beats)),
            self.mask.eq(Cat((place == i).replicate(bus_bytes) for i in range(beats))),
            self.beat.ready.eq(self.drop | self.word.ready),
            self.word_ends.eq(place == beats - 1),
            self.complete.eq(self.beat.valid & self.beat.ready & self.word_ends),
        ]
        with m.If(self.beat.valid & self.beat.ready):
            m.d.sync += place.eq(place + 1)
        return m


class BeatReader(Component):
    """`WordSplitter` without registers: each word is asked for once for each of its beats."""

    pace: Signal
    asked: Signal
    word_ends: Signal
    word_valid: Signal
    word: Signal
    filling: Signal
    beat: stream.Interface
    enable: Signal
    complete: Signal

    def __init__(self, config: AcceleratorConfig, *, words: int) -> None:
        self.config = config
        self.words = words
        super().__init__(
            {
                "pace": Out(1),
                "asked": In(1),
                "word_ends": Out(1),
                "word_valid": In(1),
                "word": In(8 * config.word_bytes),
                "filling": Out(1),
                "beat": Out(stream.Signature(8 * config.bus_bytes)),
                "enable": In(1),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.beat.payload)
        beats = len(self.word) // width
        m.submodules.buffer = buffer = BeatBuffer(self.config, words=self.words)
        connect(m, buffer.beat, flipped(self.beat))
        asked, arrived = Signal(range(beats)), Signal(range(beats))
        coming = Signal(local_read_latency(self.config))
        m.d.sync += coming.eq(Cat(self.asked, coming))
        m.d.comb += [
            self.pace.eq(1),
            self.word_ends.eq(asked == beats - 1),
            self.filling.eq(coming.any()),
            buffer.push.eq(self.word_valid),
            buffer.data.eq(Array(self.word.word_select(i, width) for i in range(beats))[arrived]),
            buffer.enable.eq(self.enable),
            self.complete.eq(buffer.complete),
        ]
        for count, step in ((asked, self.asked), (arrived, self.word_valid)):
            with m.If(step):
                m.d.sync += count.eq(count + 1)
        return m
