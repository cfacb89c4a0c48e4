"""LOAD_P: reads scale records from local memory into the epilogue's parameter ring."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_lane import RECORD
from gateformer.hw.interfaces import InstructionPort, LocalRead, local_read_latency
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine

RECORD_BYTES = 8


class ParameterLoader(Component):
    """The loader and its ring of p_depth scale records.

    A block of n records takes ceil(n / records in a word) words of the ring, so that it starts with
    a word; `base` is the ring position of the oldest record, `stored` the number of words loaded
    and not released. `release` for one cycle frees `release_words` of the oldest words; `base` and
    `stored` tell of it two cycles later.

    Each epilogue lane has a read port (and a copy of the ring): `records` holds the record of an
    address READ_LATENCY cycles after it. Only stored records are worth reading.

    A word is asked for only when the ring has room for it, and at most every other cycle. A word of
    more than one record is unpacked at one record a cycle.
    """

    READ_LATENCY = 2

    instructions: Any
    read: Any
    base: Signal
    stored: Signal
    release: Signal
    release_words: Signal
    addresses: Any
    records: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.word_records = config.word_bytes // RECORD_BYTES
        self.words = config.p_depth // self.word_records
        lanes = config.epilogue_lanes
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.LOAD_P)),
                "read": Out(LocalRead(config)),
                "base": Out(range(config.p_depth)),
                "stored": Out(range(self.words + 1)),
                "release": In(1),
                "release_words": In(range(self.words + 1)),
                "addresses": In(data.ArrayLayout(range(config.p_depth), lanes)),
                "records": Out(data.ArrayLayout(RECORD, lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stream = self.instructions.stream
        request = self.read.request
        group = self.word_records

        index = Signal(13)
        address = Signal(16, reset_less=True)
        free = Signal(range(self.words + 1), init=self.words)
        # `asking` and `address` follow `index` by a cycle: a request every other cycle, fewer
        # where a word takes longer to unpack.
        asking = Signal()
        pause = Signal(range(max(group - 1, 1)))
        # Words asked for and not here yet.
        coming = Signal(local_read_latency(self.config))
        taken = Signal()
        requested = Signal()
        stored_one = Signal()
        record, write = self._unpack(m, stored_one)
        words = (stream.payload.count + (group - 1)) >> (group - 1).bit_length()
        m.d.comb += [
            requested.eq(index == words),
            request.valid.eq(asking),
            request.payload.eq(address),
            taken.eq(request.valid & request.ready),
        ]
        m.d.sync += [
            address.eq(stream.payload.p_address + index),
            asking.eq(stream.valid & ~requested & (free != 0) & (pause == 0) & ~taken),
            coming.eq(Cat(taken, coming)),
            stream.ready.eq(stream.valid & requested & ~coming.any() & ~write & ~stream.ready),
        ]
        with m.If(stream.ready):
            m.d.sync += index.eq(0)
        with m.Elif(taken):
            m.d.sync += [index.eq(index + 1), pause.eq(max(group - 2, 0))]
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)

        released = Signal(range(self.words + 1))
        m.d.sync += [
            released.eq(Mux(self.release, self.release_words, 0)),
            free.eq(free - taken + released),
            self.stored.eq(self.stored + stored_one - released),
        ]
        m.d.sync += self.base.eq(self._wrap(m, self.base + released * group))

        self._ring(m, record, write)
        return m

    def _wrap(self, m: Module, position: Value) -> Value:
        """A position below 2 * p_depth, modulo p_depth."""
        depth = self.config.p_depth
        if depth & (depth - 1) == 0:
            return position
        sum_ = Signal(range(2 * depth), name="unwrapped")
        m.d.comb += sum_.eq(position)
        return Mux(sum_ >= depth, sum_ - depth, sum_)

    def _unpack(self, m: Module, stored_one: Signal) -> tuple[Any, Signal]:
        """The record to be written and whether there is one; the first a cycle after its word."""
        group = self.word_records
        word = Signal(64 * group, reset_less=True)
        waiting = Signal(range(group + 1))
        write = Signal()
        m.d.comb += [write.eq(waiting != 0), stored_one.eq(waiting == 1)]
        with m.If(self.read.response_valid):
            m.d.sync += [word.eq(self.read.response), waiting.eq(group)]
        with m.Elif(write):
            m.d.sync += [word.eq(word >> 64), waiting.eq(waiting - 1)]
        record: Any = Signal(RECORD)
        m.d.comb += [
            record.bias.eq(word[:32].as_signed()),
            record.multiplier.eq(word[32:48]),
            record.selector.eq(word[48:50]),
        ]
        return record, write

    def _ring(self, m: Module, record: Any, write: Signal) -> None:
        """One RAM for each lane, all written alike, and read in every cycle.

        What is worth reading is between its being stored and its release, and its place is written
        only outside of that time.
        """
        depth = self.config.p_depth
        position = Signal(range(depth))
        with m.If(write):
            m.d.sync += position.eq(Mux(position == depth - 1, 0, position + 1))
        for lane in range(self.config.epilogue_lanes):
            ring = WordRam(depth=depth, width_bytes=-(-RECORD.size // 8), family=self.config.family)
            m.submodules[f"ring_{lane}"] = ring
            m.d.comb += [
                ring.write_address.eq(position),
                ring.write_data[: RECORD.size].eq(record.as_value()),
                ring.write_mask.eq(write.replicate(len(ring.write_mask))),
                ring.read_address.eq(self.addresses[lane]),
                self.records[lane].as_value().eq(ring.read_data),
            ]
