"""Addresses and queues the words that the vector units write."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LocalWrite, local_write_layout
from gateformer.hw.vector_ports import WordSink
from gateformer.spec.config import AcceleratorConfig


class RowWriter(Component):
    """A queue of DEPTH words in front of the write port, with two address counters.

    `start` sets channel c to row 0 at `address{c}`, rows being `stride{c}` words apart. Places are
    reserved before the words exist (see WordSink), so whatever makes them needs no stall.
    `empty`: no place is reserved, every word was taken. A word is offered 2 cycles after its push.
    """

    DEPTH = 16

    start: Signal
    address0: Signal
    stride0: Signal
    address1: Signal
    stride1: Signal
    empty: Signal
    sink: Any
    write: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address0": In(16),
                "stride0": In(16),
                "address1": In(16),
                "stride1": In(16),
                "empty": Out(1),
                "sink": In(WordSink(config)),
                "write": Out(LocalWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sink, request = self.sink, self.write.request

        first = Signal()
        m.d.sync += first.eq(self.start)
        addresses = []
        for channel, (start, stride) in enumerate(
            ((self.address0, self.stride0), (self.address1, self.stride1))
        ):
            # The next row's address stands ready; the first row gets there by a step of its own.
            address = Signal(16, name=f"channel{channel}_address", reset_less=True)
            next_row = Signal(16, name=f"channel{channel}_next_row", reset_less=True)
            pushed = Signal(name=f"channel{channel}_pushed")
            m.d.comb += pushed.eq(sink.push & (sink.channel == channel))
            with m.If(first | (pushed & sink.next_row)):
                m.d.sync += [address.eq(next_row), next_row.eq(next_row + stride)]
            with m.Elif(pushed & sink.next_word):
                m.d.sync += address.eq(address + 1)
            with m.If(self.start):
                m.d.sync += next_row.eq(start)
            addresses.append(address)

        # The queue is read only where it was written in an earlier cycle, and a place is written
        # again only once it was read, so no address is read and written in one cycle.
        queue = Memory(
            shape=local_write_layout(self.config).size,
            depth=self.DEPTH,
            init=[],
            attrs={"no_rw_check": 1},
        )
        m.submodules.queue = queue
        enter = queue.write_port()
        leave = queue.read_port()
        level = Signal(range(self.DEPTH + 1))
        free = Signal(range(self.DEPTH + 1), init=self.DEPTH)
        taken = Signal()
        load = Signal()
        entry = Signal(local_write_layout(self.config))
        m.d.comb += [
            entry.address.eq(Mux(sink.channel, addresses[1], addresses[0])),
            entry.data.eq(sink.data),
            entry.mask.eq(sink.mask),
            enter.data.eq(entry),
            enter.en.eq(sink.push),
            taken.eq(request.valid & request.ready),
            load.eq((level != 0) & (~request.valid | request.ready)),
            leave.en.eq(load),
            request.payload.eq(leave.data),
            sink.room.eq(free[1:].any()),
            self.empty.eq(free[-1]),
        ]
        m.d.sync += [
            enter.addr.eq(enter.addr + sink.push),
            leave.addr.eq(leave.addr + load),
            level.eq(level + sink.push - load),
            free.eq(free + taken - sink.reserve),
        ]
        with m.If(load):
            m.d.sync += request.valid.eq(1)
        with m.Elif(request.ready):
            m.d.sync += request.valid.eq(0)
        return m
