"""The external port's beats: their buffer, and a way from and to local memory without registers."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.credits import Credits
from gateformer.hw.dma_ports import GatherPorts, SplitPorts
from gateformer.hw.interfaces import local_read_latency, pipelined
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.config import AcceleratorConfig

_AHEAD = 8
"""Beats between the buffer's RAM and the port, of which at most one less is used."""


class BeatBuffer(Component):
    """The beats of `words` words, in the order in which they are pushed; never is it overfilled.

    push: `data` is the next beat. enable: the word in front may go to the port; complete: its last
    beat begins to do so in this cycle. A beat can leave four cycles after it was pushed, two where
    not pipelined(config).
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
        self.family = config.family
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
        # An address is read only after it was written.
        head, tail = Signal(range(2 * self.depth)), Signal(range(2 * self.depth))
        leaves, fetch = Signal(), Signal()
        m.d.comb += leaves.eq(self.beat.valid & self.beat.ready)
        with m.If(self.push):
            m.d.sync += head.eq(head + 1)
        with m.If(fetch):
            m.d.sync += tail.eq(tail + 1)
        if self.registered:
            self._fetch_ahead(m, head, tail, fetch, leaves)
        else:
            self._fetch_in_time(m, head, tail, fetch, leaves)
        if self.beats == 1:
            m.d.comb += self.complete.eq(fetch)
        else:
            left = Signal(range(self.beats))
            m.d.comb += self.complete.eq(fetch & left.all())
            with m.If(fetch):
                m.d.sync += left.eq(left + 1)
        return m

    def _fetch_ahead(
        self, m: Module, head: Signal, tail: Signal, fetch: Signal, leaves: Signal
    ) -> None:
        """Through the RAM's output register into a few words of LUT RAM, so that no path from the
        port gets to the block."""
        m.submodules.memory = memory = WordRam(
            depth=self.depth, width_bytes=len(self.data) // 8, family=self.family
        )
        m.submodules.ahead = ahead = Memory(shape=len(self.data), depth=_AHEAD, init=[])
        m.submodules.room = room = Credits(_AHEAD - 1, init=_AHEAD - 1)
        m.submodules.stored = stored = Credits(self.depth)
        write, read = ahead.write_port(), ahead.read_port(domain="comb")
        filled, taken = Signal(range(_AHEAD)), Signal(range(_AHEAD))
        coming = Signal(memory.latency)
        # A place is given back a cycle late, for the port is far.
        m.d.sync += [coming.eq(Cat(fetch, coming)), room.give.eq(leaves)]
        m.d.comb += [
            memory.write_mask.eq(self.push.replicate(len(memory.write_mask))),
            memory.write_address.eq(head),
            memory.write_data.eq(self.data),
            memory.read_address.eq(tail),
            fetch.eq(room.available & stored.available & self.enable),
            room.take.eq(fetch),
            stored.give.eq(self.push),
            stored.take.eq(fetch),
            write.en.eq(coming[-1]),
            write.addr.eq(filled),
            write.data.eq(memory.read_data),
            read.addr.eq(taken),
            self.beat.valid.eq(filled != taken),
            self.beat.payload.eq(read.data),
        ]
        with m.If(coming[-1]):
            m.d.sync += filled.eq(filled + 1)
        with m.If(leaves):
            m.d.sync += taken.eq(taken + 1)

    def _fetch_in_time(
        self, m: Module, head: Signal, tail: Signal, fetch: Signal, leaves: Signal
    ) -> None:
        """The RAM's own latch is the one place behind it."""
        m.submodules.memory = memory = Memory(
            shape=len(self.data), depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        push, pull = memory.write_port(), memory.read_port()
        valid = Signal()
        accepts = ~valid | leaves
        m.d.comb += [
            push.addr.eq(head),
            push.data.eq(self.data),
            push.en.eq(self.push),
            pull.addr.eq(tail),
            pull.en.eq(fetch),
            fetch.eq(accepts & (head != tail) & self.enable),
            self.beat.valid.eq(valid),
            self.beat.payload.eq(pull.data),
        ]
        with m.If(accepts):
            m.d.sync += valid.eq(fetch)


class BeatWriter(GatherPorts):
    """`WordAssembler` without a register: each beat is a write of some bytes of a word, taken by
    local memory in the cycle in which it comes."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bytes = self.config.bus_bytes
        beats = self.beats
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


class BeatReader(SplitPorts):
    """`WordSplitter` without registers: each word is asked for once for each of its beats."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.beat.payload)
        beats = self.beats
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
