"""Fetches the program from external memory, some instructions ahead of the sequencer."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.interfaces import DramRead, pipelined
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig

BURST_BYTES = 128
"""Most bytes that one burst fetches; twice as many are held."""


class Fetch(wiring.Component):
    """A stream of the program's 32-bit words, at most one in four cycles.

    After a cycle of `restart`, while quiet, it begins at `window_base + program`, both multiples of
    INSTRUCTION_BYTES and of bus_bytes (their low bits are ignored). It reads ahead, only whole
    instructions inside the window's `window_size` bytes, never across a multiple of BURST_BYTES; a
    burst is asked for when there is room for all of it, so its beats are taken at once. `missing`
    is 1 while everything inside the window has been handed out. `abort` ends it: an open burst is
    taken and thrown away, and with `quiet` nothing is under way.
    """

    program: Signal
    window_base: Signal
    window_size: Signal
    restart: Signal
    abort: Signal
    quiet: Signal
    missing: Signal
    words: Any
    dram_read: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "program": In(config.dram_bits),
                "window_base": In(config.dram_bits),
                "window_size": In(config.dram_bits + 1),
                "restart": In(1),
                "abort": In(1),
                "quiet": Out(1),
                "missing": Out(1),
                "words": Out(stream.Signature(unsigned(32))),
                "dram_read": Out(DramRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit_bytes = max(INSTRUCTION_BYTES, self.config.bus_bytes)
        unit_beats = unit_bytes // self.config.bus_bytes
        unit_bits = unit_bytes.bit_length() - 1
        block = max(min(BURST_BYTES, self.config.burst_bytes) // unit_bytes, 1)
        ahead = 2 * block
        burst, beats = self.dram_read.burst, self.dram_read.data

        # Addresses count units: an instruction, or a beat where that is more. So do the places in
        # the buffer, of a unit that is asked for, filled and read next; a burst starts when half of
        # the buffer is free.
        bits = self.config.dram_bits - unit_bits
        offset, start = Signal(bits + 1), Signal(bits, reset_less=True)
        base = Signal(bits, reset_less=True)
        wanted = Signal(range(2 * ahead))
        beat_bits = (unit_beats - 1).bit_length()
        filled, taken = (Signal(range(2 * ahead * unit_beats), name=n) for n in ("filled", "taken"))
        pending = Signal(range(2 * ahead))
        size = Signal(range(block + 1))
        inside, growing, complete, grow = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            pending.eq(wanted - taken[beat_bits:]),
            burst.payload.address.eq(Cat(Const(0, unit_bits), start)),
            burst.payload.beats.eq(size * unit_beats),
        ]
        m.d.sync += base.eq(self.window_base[unit_bits:])
        # `inside` follows `offset` by a cycle: a comparison and an addition in one are too slow.
        settled = Signal()
        m.d.sync += [
            inside.eq(offset < self.window_size[unit_bits:]),
            settled.eq(~self.restart & ~grow),
            # So does the end of a burst follow its size.
            complete.eq(growing & (size != 0) & ((start + size)[: (block - 1).bit_length()] == 0)),
        ]
        with m.If(self.restart):
            m.d.sync += [offset.eq(self.program[unit_bits:]), wanted.eq(0)]
        with m.Elif(grow):
            m.d.sync += [offset.eq(offset + 1), wanted.eq(wanted + 1)]

        empty = Signal()
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.quiet.eq(~self.restart)
                m.d.sync += [start.eq(base + offset), size.eq(0)]
                with m.If(~self.restart & ~self.abort & settled & inside & (pending <= block)):
                    m.next = "GROW"
            with m.State("GROW"):
                m.d.comb += growing.eq(1)
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(settled & inside & ~complete):
                    m.d.comb += grow.eq(1)
                    m.d.sync += size.eq(size + 1)
                with m.Elif(settled):
                    m.next = "BURST"
            with m.State("BURST"):
                m.d.comb += burst.valid.eq(1)
                with m.If(burst.ready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += beats.ready.eq(1)
                with m.If(filled[beat_bits:] == wanted):
                    m.next = "IDLE"
        m.d.comb += self.missing.eq(fsm.ongoing("IDLE") & settled & ~inside & empty)

        self._buffer(m, filled, taken, empty, ahead * unit_beats)
        return m

    def _buffer(self, m: Module, filled: Signal, taken: Signal, empty: Signal, depth: int) -> None:
        """The beats in RAM, and the words made of them: narrow beats joined, wide ones split."""
        beats = self.dram_read.data
        bus_bits = len(beats.payload)
        # A beat is read once it is older than a cycle: never in the cycle that writes its address.
        m.submodules.memory = memory = WordRam(
            depth=depth,
            width_bytes=bus_bits // 8,
            registered=pipelined(self.config),
            family=self.config.family,
        )
        arrives = beats.valid & beats.ready
        m.d.comb += [
            memory.write_mask.eq(arrives.replicate(len(memory.write_mask))),
            memory.write_address.eq(filled),
            memory.write_data.eq(beats.payload),
            memory.read_address.eq(taken),
        ]
        with m.If(arrives):
            m.d.sync += filled.eq(filled + 1)

        parts = max(32 // bus_bits, 1)
        pieces = max(bus_bits // 32, 1)
        word = Signal(max(bus_bits, 32), reset_less=True)
        asked, arrived = Signal(range(parts + 1)), Signal(range(parts + 1))
        piece, reads = Signal(range(pieces)), Signal()
        coming = Signal(memory.latency)
        capture = coming[-1]
        m.d.comb += [
            self.words.valid.eq(arrived == parts),
            self.words.payload.eq(word[:32]),
            reads.eq((asked != parts) & (filled != taken)),
            empty.eq((filled == taken) & (asked == 0)),
        ]
        m.d.sync += coming.eq(Cat(reads, coming))
        with m.If(reads):
            m.d.sync += [taken.eq(taken + 1), asked.eq(asked + 1)]
        with m.If(capture):
            m.d.sync += [
                word.eq(Cat(word, memory.read_data)[bus_bits:] if parts > 1 else memory.read_data),
                arrived.eq(arrived + 1),
            ]
        with m.If(self.words.valid & self.words.ready):
            with m.If(piece == pieces - 1):
                m.d.sync += [piece.eq(0), asked.eq(0), arrived.eq(0)]
            with m.Else():
                m.d.sync += [piece.eq(piece + 1), word.eq(word >> 32)]
        with m.If(self.restart):
            m.d.sync += [*(s.eq(0) for s in (filled, taken, asked, arrived, piece, coming))]
