"""Fetches the program from local memory, for an accelerator without external memory."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from gateformer.hw.interfaces import LocalRead
from gateformer.hw.local_memory import beyond
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig

_PIECE_BYTES = 4


class LocalFetch(Component):
    """A stream of the program's 32-bit words, from local memory.

    After a cycle of `restart`, while quiet, it begins at byte `program` of local memory, a multiple
    of INSTRUCTION_BYTES. It stops at the end of local memory; `missing` is 1 while everything up to
    there has been handed out. While `abort`, no read begins; with `quiet`
    none is under way. A word that is offered stays until it is taken or `restart` drops it.

    Timing: the first piece of a word of local memory 4 cycles after its read was taken, a piece a
    cycle from there on, the next read 2 cycles after the last piece.
    """

    program: Signal
    restart: Signal
    abort: Signal
    quiet: Signal
    missing: Signal
    words: stream.Interface
    read: wiring.PureInterface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "program": In(config.dram_bits),
                "restart": In(1),
                "abort": In(1),
                "quiet": Out(1),
                "missing": Out(1),
                "words": Out(stream.Signature(32)),
                "read": Out(LocalRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        byte_bits = exact_log2(config.word_bytes)
        pieces = config.word_bytes // _PIECE_BYTES
        address = Signal(17, reset_less=True)
        outside = Signal(init=1)
        inside = ~outside & ~beyond(address, config.local_words)
        halfway = Signal(reset_less=True)  # begins with the upper half of a word of 64 bytes
        word = Signal(8 * config.word_bytes, reset_less=True)
        left = Signal(range(pieces + 1))
        m.d.comb += [
            self.read.request.payload.eq(address),
            self.words.payload.eq(word[: 8 * _PIECE_BYTES]),
        ]

        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += [self.quiet.eq(~self.restart), self.missing.eq(~inside)]
                with m.If(inside & ~self.abort & ~self.restart):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.read.request.valid.eq(1)
                with m.If(self.read.request.ready):
                    m.d.sync += address.eq(address + 1)
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += [word.eq(self.read.response), left.eq(pieces)]
                if config.word_bytes > INSTRUCTION_BYTES:
                    with m.If(halfway):
                        m.d.sync += [
                            word.eq(self.read.response >> 8 * INSTRUCTION_BYTES),
                            left.eq(INSTRUCTION_BYTES // _PIECE_BYTES),
                        ]
                with m.If(self.read.response_valid):
                    m.d.sync += halfway.eq(0)
                    m.next = "HAND"
            with m.State("HAND"):
                m.d.comb += [self.words.valid.eq(1), self.quiet.eq(~self.restart)]
                with m.If(self.words.ready):
                    m.d.sync += [word.eq(word >> 8 * _PIECE_BYTES), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "IDLE"
                with m.If(self.restart):
                    m.next = "IDLE"
        with m.If(self.restart):
            m.d.sync += [
                address.eq(self.program[byte_bits:]),
                outside.eq(self.program[byte_bits + 16 :].any()),
            ]
            if config.word_bytes > INSTRUCTION_BYTES:
                m.d.sync += halfway.eq(self.program[byte_bits - 1])
        return m
