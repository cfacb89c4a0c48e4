"""Reads rows of words from local memory at the pace at which a vector unit takes their groups."""

from typing import Any

from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from gateformer.hw.interfaces import LocalRead, local_read_latency
from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.vector_ports import GroupSource, group_bytes, hold_shape, pause_shape, row_words
from gateformer.spec.config import AcceleratorConfig


class RowReader(Component):
    """Reads `rows` rows (at least 1; one if `single`) of `last_word` + 1 words, `stride` words
    apart or, if `contiguous`, one behind the other.

    The job is taken in the cycle of `start`, before which `clear` comes, and must stay until its
    final group is over. A group is held for `hold` + 1 cycles. A word is requested `pause` + 2
    cycles after the last one, so that it is used up when the next one comes. `row_free`: a row may
    begin. `owed`: no row may end. `row_begun` and `row_ended` are 1 for a cycle when the first and
    the last word of a row are requested.

    The bytes of a row's groups that count are those up to `last_byte` and, of row 0, before
    `bound`; with `grows`, each row counts one byte more than the last, up to `last_byte`. With
    `codes`, of each two mask bits the second says instead whether the row's last byte is in the
    group.
    """

    clear: Signal
    start: Signal
    address: Signal
    stride: Signal
    rows: Signal
    single: Signal
    last_word: Signal
    hold: Signal
    pause: Signal
    last_byte: Signal
    bound: Signal
    grows: Signal
    codes: Signal
    contiguous: Signal
    row_free: Signal
    owed: Signal
    row_begun: Signal
    row_ended: Signal
    read: Any
    source: Any

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
                "hold": In(hold_shape(config)),
                "pause": In(pause_shape(config)),
                "last_byte": In(13),
                "bound": In(13),
                "grows": In(1),
                "codes": In(1),
                "contiguous": In(1),
                "row_free": In(1),
                "owed": In(1),
                "row_begun": Out(1),
                "row_ended": Out(1),
                "read": Out(LocalRead(config)),
                "source": Out(GroupSource(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ended = self._requests(m)
        valid, end, last_here, group = self._groups(m, ended)
        self._masks(m, valid, end, last_here, group)
        return m

    def _requests(self, m: Module) -> tuple[Value, Value]:
        """Asks for words; returns whether the word that comes next is its row's last, its job's
        last row."""
        request, family = self.read.request, self.config.family
        active = Signal()
        first = Signal(reset_less=True)
        pause = Signal.like(self.pause, reset_less=True)
        # Words and rows to ask for besides those at hand, less one: the sign tells the last.
        words = Signal(Shape(len(self.last_word) + 1, signed=True), reset_less=True)
        rows = Signal(Shape(13, signed=True), reset_less=True)
        last = words[-1]
        final = rows[-1] | self.single
        taken = Signal()
        m.d.comb += [
            taken.eq(request.valid & request.ready),
            self.row_begun.eq(taken & first),
            self.row_ended.eq(taken & last),
        ]
        with m.If(taken):
            m.d.sync += [request.valid.eq(0), first.eq(last), pause.eq(self.pause)]
            with m.If(last & final):
                m.d.sync += active.eq(0)
        with m.Elif(active & (pause == 0) & (self.row_free | ~first) & ~(last & self.owed)):
            m.d.sync += request.valid.eq(1)
        with m.If(~taken & (pause != 0)):
            m.d.sync += pause.eq(pause - 1)
        with m.If(self.start):
            m.d.sync += [active.eq(1), first.eq(1), pause.eq(0)]

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

        flying = Signal(2 * local_read_latency(self.config), reset_less=True)
        m.d.sync += flying.eq(Cat(last, final, flying))
        return flying[-2], flying[-1]

    def _groups(
        self, m: Module, ended: tuple[Value, Value]
    ) -> tuple[Signal, Signal, Signal, Value]:
        """Cuts words into groups; returns valid, whether the row's last group and its last byte are
        there, and the group."""
        config = self.config
        bits = 8 * group_bytes(config)
        slots = config.word_bytes // group_bytes(config)
        word = Signal(8 * config.word_bytes, reset_less=True)
        word_last = Signal(reset_less=True)
        word_final = Signal(reset_less=True)
        slot = Signal(range(slots), init=slots - 1)
        held = Signal.like(self.hold, reset_less=True)
        valid = Signal()
        end = Signal()
        last_here = Signal()
        more = Signal()
        m.d.comb += [end.eq(word_last & (slot == slots - 1)), more.eq(slot != slots - 1)]
        with m.If(self.read.response_valid):
            m.d.sync += [
                word.eq(self.read.response),
                word_last.eq(ended[0]),
                word_final.eq(ended[1]),
                slot.eq(0),
                held.eq(self.hold),
                valid.eq(1),
            ]
        with m.Elif((held == 0) & more):
            m.d.sync += [word.eq(word >> bits), slot.eq(slot + 1), held.eq(self.hold), valid.eq(1)]
        with m.Else():
            m.d.sync += valid.eq(0)
            with m.If(held != 0):
                m.d.sync += held.eq(held - 1)
        m.d.sync += [self.source.valid.eq(valid), self.source.final.eq(word_final)]
        with m.If(valid):
            m.d.sync += self.source.end.eq(end)
        last_slot = self.last_byte[ceil_log2(bits // 8) : ceil_log2(config.word_bytes)]
        m.d.comb += last_here.eq(word_last & (slot == last_slot))
        return valid, end, last_here, word[:bits]

    def _masks(
        self, m: Module, valid: Signal, end: Signal, last_here: Signal, group: Value
    ) -> None:
        """Which bytes of a group count: all until the bound or the row's last byte."""
        config, source = self.config, self.source
        size = group_bytes(config)
        low = ceil_log2(size)
        slots = config.word_bytes // size
        bound = Signal(13, reset_less=True)
        following = mux_add(
            m,
            ~self.start,
            self.start,
            self.bound,
            bound,
            bound.shape(),
            name="bound",
            family=config.family,
        )
        number = Signal(range(row_words(config) * slots), reset_less=True)
        open_ = Signal(reset_less=True)
        bound_here = Signal()
        m.d.comb += bound_here.eq((number == bound[low:]) & ~self.codes)
        bits: list[Value] = []
        for i in range(size):
            counts = ~last_here | (self.last_byte[:low] >= i)
            counts &= open_ & (~bound_here | (bound[:low] > i))
            if i % 2:
                counts = Mux(self.codes, open_ & last_here, counts)
            bits.append(counts)
        with m.If(valid):
            m.d.sync += [source.group.eq(group), source.mask.eq(Cat(bits)), number.eq(number + 1)]
            with m.If(bound_here | last_here):
                m.d.sync += open_.eq(0)
            with m.If(end):
                m.d.sync += [number.eq(0), open_.eq(1)]
        with m.If(self.start):
            m.d.sync += [number.eq(0), open_.eq(1)]
        with m.If(self.start | (valid & end & self.grows)):
            m.d.sync += bound.eq(following)
