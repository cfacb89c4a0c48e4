"""Shares the read half of the external memory port between instruction fetch and DMA."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import DramRead
from gateformer.spec.config import AcceleratorConfig


class DramArbiter(Component):
    """`fetch` and `dma` are served over `port`, whole bursts at a time, `fetch` first.

    A burst reaches the port a cycle after it was taken, at most one every two cycles; up to
    BURSTS are under way. Beats pass in the same cycle, to the client whose burst they answer.
    """

    BURSTS = 4

    fetch: wiring.PureInterface
    dma: wiring.PureInterface
    port: wiring.PureInterface

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "fetch": In(DramRead(config)),
                "dma": In(DramRead(config)),
                "port": Out(DramRead(config)),
            }
        )

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

        head = data.View(tag_layout, tags.r_data)
        # The beat of the burst that comes next, from 1.
        number = Signal(len(beats), init=1)
        moves = Signal()
        last = Signal()
        m.d.comb += [
            fetch.data.payload.eq(port.data.payload),
            dma.data.payload.eq(port.data.payload),
            fetch.data.valid.eq(port.data.valid & tags.r_rdy & ~head.is_dma),
            dma.data.valid.eq(port.data.valid & tags.r_rdy & head.is_dma),
            port.data.ready.eq(tags.r_rdy & Mux(head.is_dma, dma.data.ready, fetch.data.ready)),
            moves.eq(port.data.valid & port.data.ready),
            last.eq(number == head.beats),
            tags.r_en.eq(moves & last),
        ]
        with m.If(moves):
            m.d.sync += number.eq(Mux(last, 1, number + 1))
        return m
