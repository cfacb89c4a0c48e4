"""LOAD_P and the ring of scale records of the serial epilogue, 16 bits wide."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import InstructionPort, LocalRead
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine

RECORD_BYTES = 8
_PARTS = RECORD_BYTES // 2


class SerialParameters(Component):
    """The loader and its ring of p_depth scale records, in one RAM of 16 bits.

    A block of n records takes ceil(n / records in a word) words of the ring. `loaded`: the oldest
    `records` records are there, as of the cycle before. `release` for one cycle frees their words.
    With `record` (behind the oldest) and `part` in one cycle, `value` is that quarter of it in the
    next: bias low, bias high, multiplier, selector.

    A word is asked for once for each 16 bits of it: bandwidth is cheaper here than a register.
    """

    instructions: Any
    read: Any
    records: Signal
    loaded: Signal
    release: Signal
    record: Signal
    part: Signal
    value: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.word_records = config.word_bytes // RECORD_BYTES
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.LOAD_P)),
                "read": Out(LocalRead(config)),
                "records": In(12),
                "loaded": Out(1),
                "release": In(1),
                "record": In(range(config.p_depth)),
                "part": In(range(_PARTS)),
                "value": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, stream = self.config, self.instructions.stream
        group = self.word_records
        words = config.p_depth // group

        def in_words(records: Value) -> Value:
            return (records + (group - 1)) >> (group - 1).bit_length()

        index = Signal(12)
        part = Signal(range(group * _PARTS))
        position = Signal(range(words))
        base = Signal(range(words))
        stored = Signal(range(words + 1))
        whole = Signal()
        blocks = Signal(12)
        m.d.comb += blocks.eq(in_words(self.records))
        m.d.sync += [
            self.loaded.eq(stored >= blocks),
            stored.eq(stored + whole - Mux(self.release, blocks, 0)),
        ]
        with m.If(self.release):
            m.d.sync += base.eq(_wrapped(m, base + blocks, words))

        request = self.read.request
        m.d.comb += request.payload.eq(stream.payload.p_address + index)
        with m.FSM():
            with m.State("IDLE"), m.If(stream.valid):
                m.next = "LOOK"
            with m.State("LOOK"):
                with m.If(index == in_words(stream.payload.count)):
                    m.d.sync += index.eq(0)
                    m.next = "DONE"
                with m.Elif(stored != words):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += request.valid.eq(1)
                with m.If(request.ready):
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(self.read.response_valid):
                m.next = "ASK"
                m.d.sync += part.eq(part + 1)
                with m.If(part.all()):
                    m.d.comb += whole.eq(1)
                    m.d.sync += [
                        index.eq(index + 1),
                        position.eq(_wrapped(m, position + 1, words)),
                    ]
                    m.next = "LOOK"
            with m.State("DONE"):
                m.d.comb += stream.ready.eq(1)
                m.next = "IDLE"

        # A record is read only between its being stored and its release: no address is read and
        # written in one cycle.
        m.submodules.ring = ring = Memory(
            shape=16, depth=_PARTS * config.p_depth, init=[], attrs={"no_rw_check": 1}
        )
        write, read = ring.write_port(), ring.read_port()
        parts = [self.read.response.word_select(i, 16) for i in range(group * _PARTS)]
        place = Signal(range(2 * config.p_depth))
        m.d.comb += [
            write.en.eq(self.read.response_valid),
            write.addr.eq(Cat(part, position)),
            write.data.eq(Array(parts)[part]),
            place.eq(_wrapped(m, base * group + self.record, config.p_depth)),
            read.addr.eq(Cat(self.part, place)),
            self.value.eq(read.data),
        ]
        return m


def _wrapped(m: Module, position: Value, size: int) -> Value:
    """A position below 2 * size, modulo size."""
    if size & (size - 1) == 0:
        return position[: (size - 1).bit_length()]
    sum_ = Signal(range(2 * size), name="unwrapped")
    m.d.comb += sum_.eq(position)
    return Mux(sum_ >= size, sum_ - size, sum_)
