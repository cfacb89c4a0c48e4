"""Words of rows from local memory, asked for ahead of their use."""

from typing import Any

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import LocalRead, local_read_latency, pipelined
from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.vector_ports import row_words
from gateformer.spec.config import AcceleratorConfig


def words_ahead(config: AcceleratorConfig) -> int:
    """Words that are asked for before they are used: as many as a memory with a long way takes for
    one every other cycle, while other readers have their turns."""
    return 8 if pipelined(config) else 1


class RowWords(Component):
    """Reads `rows` rows (at least 1; one if `single`) of `last_word` + 1 words, `stride` words
    apart or, if `contiguous`, one behind the other.

    The job is taken in the cycle of `start`, before which `clear` comes, and must stay until its
    last word is there. While `available`, the oldest word is on `word`, with `last` for its row's
    last and `final` in the job's last row; `take` gives it up. At most words_ahead words are under
    way or waiting, so a memory that is late now and then costs nothing.
    """

    clear: Signal
    start: Signal
    address: Signal
    stride: Signal
    rows: Signal
    single: Signal
    last_word: Signal
    contiguous: Signal
    available: Signal
    take: Signal
    word: Signal
    last: Signal
    final: Signal
    read: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "start": In(1),
                "address": In(16),
                "stride": In(16),
                "rows": In(12),
                "single": In(1),
                "last_word": In(range(row_words(config))),
                "contiguous": In(1),
                "available": Out(1),
                "take": In(1),
                "word": Out(8 * config.word_bytes),
                "last": Out(1),
                "final": Out(1),
                "read": Out(LocalRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last, final = self._requests(m)
        flying = Signal(2 * local_read_latency(self.config), reset_less=True)
        m.d.sync += flying.eq(Cat(last, final, flying))
        self._queue(m, Cat(self.read.response, flying[-2:]))
        return m

    def _requests(self, m: Module) -> tuple[Signal, Signal]:
        """Asks for words; returns whether the one on offer is its row's last, its job's last
        row."""
        request, family = self.read.request, self.config.family
        m.submodules.places = places = Credits(
            words_ahead(self.config), init=words_ahead(self.config)
        )
        active = Signal()
        # Words and rows to ask for besides those at hand, less one: the sign tells the last.
        words = Signal(Shape(len(self.last_word) + 1, signed=True), reset_less=True)
        rows = Signal(Shape(13, signed=True), reset_less=True)
        last = Signal()
        final = Signal()
        taken = Signal()
        done = Signal()
        m.d.comb += [
            last.eq(words[-1]),
            final.eq(rows[-1] | self.single),
            taken.eq(request.valid & request.ready),
            done.eq(taken & last & final),
            places.take.eq(active & places.available & ~done & (~request.valid | request.ready)),
            places.give.eq(self.take),
        ]
        m.d.sync += [
            request.valid.eq(places.take | (request.valid & ~request.ready)),
            active.eq(self.start | (active & ~done)),
        ]

        # `clear` has left the counters at their ends and the addresses at 0.
        base = Signal(16, reset_less=True)
        row_step = last & ~self.contiguous
        less_words = mux_add(
            m, -1, last, self.last_word, words, words.shape(), name="words", family=family
        )
        less_rows = mux_add(
            m,
            Cat(~self.start, 1).as_signed(),
            self.start,
            self.rows,
            rows,
            rows.shape(),
            name="rows",
            family=family,
        )
        address = mux_add(
            m,
            Mux(self.start, self.address, Mux(row_step, self.stride, 1)),
            row_step,
            base,
            request.payload,
            Shape(16),
            name="address",
            family=family,
        )
        with m.If(self.start | taken):
            m.d.sync += [request.payload.eq(address), words.eq(less_words)]
        with m.If(self.start | (taken & last)):
            m.d.sync += [base.eq(address), rows.eq(less_rows)]
        with m.If(self.clear):
            m.d.sync += [request.payload.eq(0), base.eq(0), words.eq(-1)]
        return last, final

    def _queue(self, m: Module, arriving: Cat) -> None:
        """Words with their flags, in the order of their arrival."""
        depth = words_ahead(self.config)
        arrived = self.read.response_valid
        m.submodules.waiting = waiting = Credits(depth)
        m.d.comb += [
            waiting.give.eq(arrived),
            waiting.take.eq(self.take),
            self.available.eq(waiting.available),
        ]
        oldest = Cat(self.word, self.last, self.final)
        if depth == 1:
            word = Signal(len(arriving), reset_less=True)
            with m.If(arrived):
                m.d.sync += word.eq(arriving)
            m.d.comb += oldest.eq(word)
            return
        # A read port without a clock: RAM of LUTs.
        m.submodules.queue = queue = Memory(shape=len(arriving), depth=depth, init=[])
        enter, leave = queue.write_port(), queue.read_port(domain="comb")
        m.d.comb += [
            enter.data.eq(arriving),
            enter.en.eq(arrived),
            oldest.eq(leave.data),
        ]
        m.d.sync += [
            enter.addr.eq(enter.addr + arrived),
            leave.addr.eq(leave.addr + self.take),
        ]
