"""A stream cut by registers in both directions."""

from amaranth import Module, Mux, ShapeLike, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out


class StreamRegister(Component):
    """`output` is `input`, a cycle later; one transfer a cycle.

    `input.ready`, `output.valid` and `output.payload` are registers: what comes in a cycle in which
    `output` is refused waits in a second one.
    """

    input: stream.Interface
    output: stream.Interface

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__(
            {"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        source, sink = self.input, self.output
        ready, valid = Signal(init=1), Signal()
        waiting = Signal.like(source.payload, reset_less=True)
        payload = Signal.like(source.payload, reset_less=True)
        m.d.comb += [source.ready.eq(ready), sink.valid.eq(valid), sink.payload.eq(payload)]
        with m.If(ready):
            m.d.sync += waiting.eq(source.payload)
        with m.If(~valid | sink.ready):
            m.d.sync += [
                payload.eq(Mux(ready, source.payload, waiting)),
                valid.eq(~ready | source.valid),
                ready.eq(1),
            ]
        with m.Elif(source.valid):
            m.d.sync += ready.eq(0)
        return m
