"""Cuts the rows that a vector unit reads into groups, at the unit's pace."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from gateformer.hw.interfaces import LocalRead
from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.vector_ports import GroupSource, group_bytes, hold_shape, row_words
from gateformer.hw.vector_words import RowWords
from gateformer.spec.config import AcceleratorConfig


class RowReader(Component):
    """Reads a job of rows, see RowWords, which must stay until its final group is over.

    A group is held for `hold` + 1 cycles, and longer where local memory is late. `room`: a word's
    groups may leave. `owed`: the groups of no row's last word may. `row_ended` is 1 for a cycle as
    those begin to leave.

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
    last_byte: Signal
    bound: Signal
    grows: Signal
    codes: Signal
    contiguous: Signal
    room: Signal
    owed: Signal
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
                "last_byte": In(13),
                "bound": In(13),
                "grows": In(1),
                "codes": In(1),
                "contiguous": In(1),
                "room": In(1),
                "owed": In(1),
                "row_ended": Out(1),
                "read": Out(LocalRead(config)),
                "source": Out(GroupSource(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid, end, last_here, group = self._groups(m)
        self._masks(m, valid, end, last_here, group)
        return m

    def _groups(self, m: Module) -> tuple[Signal, Signal, Signal, Signal]:
        """Cuts words into groups; returns valid, whether the row's last group and its last byte are
        there, and the group."""
        config = self.config
        bits = 8 * group_bytes(config)
        slots = config.word_bytes // group_bytes(config)
        m.submodules.words = words = RowWords(config)
        for name in ("clear", "start", "address", "stride", "rows", "single"):
            m.d.comb += getattr(words, name).eq(getattr(self, name))
        m.d.comb += [words.last_word.eq(self.last_word), words.contiguous.eq(self.contiguous)]
        connect(m, words.read, flipped(self.read))

        slot = Signal(range(slots))
        held = Signal.like(self.hold)
        word_begin = Signal()
        word_end = Signal()
        go = Signal()
        m.d.comb += [
            word_begin.eq(slot == 0),
            word_end.eq(slot == slots - 1),
            go.eq(
                (held == 0)
                & (~word_begin | (words.available & self.room & ~(words.last & self.owed)))
            ),
            words.take.eq(go & word_end),
            self.row_ended.eq(go & word_begin & words.last),
        ]
        group = Signal(bits, reset_less=True)
        group_slot = Signal.like(slot, reset_less=True)
        valid = Signal()
        last = Signal(reset_less=True)
        end = Signal(reset_less=True)
        final = Signal(reset_less=True)
        m.d.sync += [
            valid.eq(go),
            group.eq(words.word.word_select(slot, bits)),
            group_slot.eq(slot),
            last.eq(words.last),
            end.eq(words.last & word_end),
            final.eq(words.final),
        ]
        with m.If(go):
            m.d.sync += [slot.eq(Mux(word_end, 0, slot + 1)), held.eq(self.hold)]
        with m.Elif(held != 0):
            m.d.sync += held.eq(held - 1)

        m.d.sync += self.source.valid.eq(valid)
        with m.If(valid):
            m.d.sync += [self.source.end.eq(end), self.source.final.eq(final)]
        last_slot = self.last_byte[ceil_log2(bits // 8) : ceil_log2(config.word_bytes)]
        last_here = Signal()
        m.d.comb += last_here.eq(last & (group_slot == last_slot))
        return valid, end, last_here, group

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
