"""Shares the read half of the external memory port between instruction fetch and DMA."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import connect

from gateformer.hw.countdown import CountDown
from gateformer.hw.dram_ports import DramPorts
from gateformer.hw.interfaces import pipelined
from gateformer.hw.stream_register import StreamRegister


class DramArbiter(DramPorts):
    """`fetch` and `dma` are served over `port`, whole bursts at a time, `fetch` first.

    A burst reaches the port a cycle after it was taken, at most one every two cycles; up to
    BURSTS are under way behind the one whose beats come. Beats go to the client whose burst they
    answer, in the same cycle, or in the next one where pipelined(config).
    """

    BURSTS = 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetch, dma, port = self.fetch, self.dma, self.port
        beats = port.burst.payload.beats
        tag_layout = data.StructLayout({"is_dma": 1, "beats": len(beats)})
        m.submodules.tags = tags = SyncFIFO(width=tag_layout.size, depth=self.BURSTS)

        offered = Signal()
        bits = self.config.dram_bits
        address, size = Signal(bits, reset_less=True), Signal.like(beats, reset_less=True)
        chosen = Mux(fetch.burst.valid, fetch.burst.payload.address, dma.burst.payload.address)
        is_open = Signal()
        m.d.comb += [
            is_open.eq(~offered & tags.w_rdy),
            fetch.burst.ready.eq(is_open),
            dma.burst.ready.eq(is_open & ~fetch.burst.valid),
            port.burst.valid.eq(offered),
            port.burst.payload.address.eq(address),
            port.burst.payload.beats.eq(size),
            tags.w_en.eq(is_open & (fetch.burst.valid | dma.burst.valid)),
        ]
        tag_in = data.View(tag_layout, tags.w_data)
        m.d.comb += [
            tag_in.is_dma.eq(~fetch.burst.valid),
            tag_in.beats.eq(
                Mux(fetch.burst.valid, fetch.burst.payload.beats, dma.burst.payload.beats)
            ),
        ]
        with m.If(tags.w_en):
            m.d.sync += [offered.eq(1), address.eq(chosen), size.eq(tag_in.beats)]
        with m.Elif(port.burst.ready):
            m.d.sync += offered.eq(0)

        # Beats are told apart as they come: whether somebody takes one hangs on registers only.
        head = data.View(tag_layout, tags.r_data)
        open_burst, is_dma = Signal(), Signal(reset_less=True)
        moves, last, opens = Signal(), Signal(), Signal()
        beat_layout = data.StructLayout({"data": len(port.data.payload), "is_dma": 1})
        coming: Any = stream.Signature(beat_layout).create(path=("coming",))
        beat = coming
        if pipelined(self.config):
            m.submodules.beats = register = StreamRegister(beat_layout)
            connect(m, coming, register.input)
            beat = register.output
        left = CountDown(
            m,
            self.config,
            total=head.beats,
            step=1,
            load=~open_burst | last,
            advance=opens | moves,
            name="beats",
        )
        ends = moves & last
        # What was opened leaves the queue a cycle later.
        m.d.sync += tags.r_en.eq(opens)
        m.d.comb += [
            last.eq(left.last),
            opens.eq(tags.r_rdy & ~tags.r_en & (~open_burst | ends)),
            coming.payload.data.eq(port.data.payload),
            coming.payload.is_dma.eq(is_dma),
            coming.valid.eq(port.data.valid & open_burst),
            port.data.ready.eq(coming.ready & open_burst),
            moves.eq(coming.valid & coming.ready),
            fetch.data.payload.eq(beat.payload.data),
            dma.data.payload.eq(beat.payload.data),
            fetch.data.valid.eq(beat.valid & ~beat.payload.is_dma),
            dma.data.valid.eq(beat.valid & beat.payload.is_dma),
            beat.ready.eq(Mux(beat.payload.is_dma, dma.data.ready, fetch.data.ready)),
        ]
        with m.If(opens):
            m.d.sync += [open_burst.eq(1), is_dma.eq(head.is_dma)]
        with m.Elif(ends):
            m.d.sync += open_burst.eq(0)
        return m
