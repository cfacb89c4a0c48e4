"""Shares the read half of the external memory port, one burst at a time."""

from amaranth import Module, Mux, Signal

from gateformer.hw.dram_ports import DramPorts


class DramTurns(DramPorts):
    """`DramArbiter` with one burst under way, where flip-flops are dear.

    `fetch` comes first. A burst reaches the port a cycle after it was taken, the next one is taken
    in the second cycle after the last beat at the earliest.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetch, dma, port = self.fetch, self.dma, self.port
        is_dma = Signal()
        address = Signal(self.config.dram_bits, reset_less=True)
        left = Signal.like(port.burst.payload.beats, reset_less=True)
        of_fetch, of_dma = fetch.burst.payload, dma.burst.payload
        m.d.comb += [
            port.burst.payload.address.eq(address),
            port.burst.payload.beats.eq(left),
            fetch.data.payload.eq(port.data.payload),
            dma.data.payload.eq(port.data.payload),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [fetch.burst.ready.eq(1), dma.burst.ready.eq(~fetch.burst.valid)]
                m.d.sync += [
                    is_dma.eq(~fetch.burst.valid),
                    address.eq(Mux(fetch.burst.valid, of_fetch.address, of_dma.address)),
                    left.eq(Mux(fetch.burst.valid, of_fetch.beats, of_dma.beats)),
                ]
                with m.If(fetch.burst.valid | dma.burst.valid):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += port.burst.valid.eq(1)
                with m.If(port.burst.ready):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += [
                    fetch.data.valid.eq(port.data.valid & ~is_dma),
                    dma.data.valid.eq(port.data.valid & is_dma),
                    port.data.ready.eq(Mux(is_dma, dma.data.ready, fetch.data.ready)),
                ]
                with m.If(port.data.valid & port.data.ready):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "IDLE"
        return m
