"""Reads rows of words from local memory at the pace at which a vector unit takes them."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LocalRead, local_read_latency
from gateformer.hw.vector_ports import WordSource
from gateformer.hw.vector_row import WordCounter
from gateformer.spec.config import AcceleratorConfig


class RowReader(Component):
    """Reads `rows` rows of `words` words (both at least 1) from `address` on, `stride` words apart.

    The job is taken in the cycle of `start` and must stay until `idle`. Requests are granted at
    least `last_step + 1` cycles apart; as the memory answers after a fixed time, a word is used up
    when the next one comes, and one register takes the place of a FIFO. A word is on `source` from
    the cycle after its response on.
    """

    start: Signal
    address: Signal
    stride: Signal
    rows: Signal
    words: Signal
    last_step: Signal
    idle: Signal
    read: Any
    source: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(16),
                "stride": In(16),
                "rows": In(12),
                "words": In(12),
                "last_step": In(range(config.word_bytes)),
                "idle": Out(1),
                "read": Out(LocalRead(config)),
                "source": Out(WordSource(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        source, request = self.source, self.read.request

        active = Signal()
        rows_left = Signal(12, reset_less=True)
        m.submodules.words_counter = words = WordCounter(bits=12)
        is_last = words.last
        timer = Signal(range(self.config.word_bytes))
        request_last = Signal(reset_less=True)
        taken = Signal()
        m.d.comb += [
            taken.eq(request.valid & request.ready),
            words.load.eq(self.start | source.issue_last),
            words.words.eq(self.words),
            words.advance.eq(source.issue),
            source.issue.eq(
                active
                & (~request.valid | (taken & (self.last_step == 0)))
                & (timer == 0)
                & source.allow
                & (~is_last | source.allow_last)
            ),
            source.issue_last.eq(source.issue & is_last),
        ]

        with m.If(source.issue):
            m.d.sync += [request.valid.eq(1), request_last.eq(is_last)]
            with m.If(is_last):
                m.d.sync += rows_left.eq(rows_left - 1)
                m.d.sync += active.eq(rows_left != 1)
        with m.Elif(request.ready):
            m.d.sync += request.valid.eq(0)

        # A request prepared in cycle t is granted in t + 1 at the earliest.
        with m.If(taken & (self.last_step != 0)):
            m.d.sync += timer.eq(self.last_step - 1)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)

        # The next row's address stands ready; the first row gets there by a step of its own.
        next_row = Signal(16, reset_less=True)
        first = Signal()
        m.d.sync += first.eq(self.start)
        with m.If(first | (taken & request_last)):
            m.d.sync += [request.payload.eq(next_row), next_row.eq(next_row + self.stride)]
        with m.Elif(taken):
            m.d.sync += request.payload.eq(request.payload + 1)

        with m.If(self.start):
            m.d.sync += [
                rows_left.eq(self.rows),
                next_row.eq(self.address),
            ]
        with m.If(first):
            m.d.sync += active.eq(1)

        flying = Signal(local_read_latency(self.config))
        flying_last = Signal(local_read_latency(self.config), reset_less=True)
        m.d.sync += [
            flying.eq(Cat(taken, flying)),
            flying_last.eq(Cat(request_last, flying_last)),
        ]
        with m.If(self.read.response_valid):
            m.d.sync += [
                source.valid.eq(1),
                source.word.eq(self.read.response),
                source.last.eq(flying_last[-1]),
                source.step.eq(0),
            ]
        with m.Elif(source.step == self.last_step):
            m.d.sync += source.valid.eq(0)
        with m.Else():
            m.d.sync += source.step.eq(source.step + 1)

        m.d.comb += self.idle.eq(~(first | active | request.valid | flying.any() | source.valid))
        return m
