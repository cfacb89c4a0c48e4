"""Queues, addresses and puts together the groups that the vector units write."""

from typing import Any

from amaranth import Array, Module, Mux, Shape, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LocalWrite
from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.vector_ports import group_bytes, out_layout
from gateformer.spec.config import AcceleratorConfig

UNIT = 8
"""Bytes that are written together: a scale record, a word of the smallest kind."""


class RowWriter(Component):
    """A queue of groups, and the addresses of two channels.

    `start` is 1 for two cycles, with `channel` 0 and then 1: channel c begins at `address{c}`, its
    rows `stride{c}` words apart. `push` appends `group` to the queue, never more than one group a
    cycle. It can not be refused: `room` says that half of the queue is free, which is more than a
    unit has on its way. UNIT bytes are written at a time, fewer at the end of a row, and single
    groups of channel 0 if `single`. Of a row's last group the bytes in `tail{c}` are written.
    `done` is 1 for the cycle in which the final group is taken.
    """

    DEPTH = 64

    start: Signal
    channel: Signal
    address0: Signal
    stride0: Signal
    address1: Signal
    stride1: Signal
    single: Signal
    tail0: Signal
    tail1: Signal
    push: Signal
    group: Any
    room: Signal
    done: Signal
    write: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        size = group_bytes(config)
        super().__init__(
            {
                "start": In(1),
                "channel": In(1),
                "address0": In(16),
                "stride0": In(16),
                "address1": In(16),
                "stride1": In(16),
                "single": In(1),
                "tail0": In(size),
                "tail1": In(size),
                "push": In(1),
                "group": In(out_layout(config)),
                "room": Out(1),
                "done": Out(1),
                "write": Out(LocalWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.write.request
        size = group_bytes(self.config)
        slots = self.config.word_bytes // size

        # The queue, its output register, and behind it `head`, as a RAM's output is late. A place
        # is read only when it was written in an earlier cycle and written when it was read before:
        # no address is read and written in one cycle.
        queue = Memory(
            shape=out_layout(self.config).size,
            depth=self.DEPTH,
            init=[],
            attrs={"no_rw_check": 1, "ram_style": "block"},
        )
        m.submodules.queue = queue
        enter, leave = queue.write_port(), queue.read_port()
        level = Signal(range(self.DEPTH + 1))
        out_valid = Signal()
        head_valid = Signal()
        head = Signal(out_layout(self.config), reset_less=True)
        fetch = Signal()
        forward = Signal()
        advance = Signal()
        m.d.comb += [
            enter.data.eq(self.group),
            enter.en.eq(self.push),
            advance.eq(head_valid & (~request.valid | request.ready)),
            forward.eq(out_valid & (~head_valid | advance)),
            fetch.eq((level != 0) & (~out_valid | forward)),
            leave.en.eq(fetch),
        ]
        m.d.sync += [
            enter.addr.eq(enter.addr + self.push),
            leave.addr.eq(leave.addr + fetch),
            level.eq(level + self.push - fetch),
            out_valid.eq(fetch | (out_valid & ~forward)),
            head_valid.eq(forward | (head_valid & ~advance)),
            self.room.eq(~level[-2:].any()),
        ]
        with m.If(forward):
            m.d.sync += head.eq(leave.data)

        # Where the group stands in its word, and whether what stands there is written.
        places = Array(Signal(range(slots), name=f"slot_{i}", reset_less=True) for i in range(2))
        slot = Signal(range(slots))
        alone = Signal()
        first = Signal()
        send = Signal()
        word_end = Signal()
        unit_bits = (UNIT // size - 1).bit_length()
        tail = Signal(size)
        m.d.comb += [
            slot.eq(places[head.channel]),
            alone.eq(self.single & ~head.channel),
            first.eq(alone | ~slot[:unit_bits].any()),
            send.eq(alone | head.end | slot[:unit_bits].all()),
            word_end.eq(slot == slots - 1),
            tail.eq(Mux(head.channel, self.tail1, self.tail0) | (~head.end).replicate(size)),
        ]
        final = Signal(reset_less=True)
        payload = request.payload
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(advance):
            m.d.sync += [request.valid.eq(send), final.eq(head.final)]
            for i in range(slots):
                mask = payload.mask.word_select(i, size)
                with m.If(slot == i):
                    m.d.sync += [payload.data.word_select(i, 8 * size).eq(head.data), mask.eq(tail)]
                with m.Elif(first):
                    m.d.sync += mask.eq(0)
        m.d.comb += self.done.eq(request.valid & request.ready & final)
        for i, place in enumerate(places):
            with m.If(advance & (head.channel == i)):
                m.d.sync += place.eq(place + 1)
            with m.If(self.start | (advance & (head.channel == i) & (head.end | word_end))):
                m.d.sync += place.eq(0)

        # Of each channel the word at hand and its row's first one.
        channel = Signal()
        step = Signal()
        m.d.comb += [
            channel.eq(Mux(self.start, self.channel, head.channel)),
            step.eq(self.start | (advance & (head.end | word_end))),
        ]
        starts = Mux(self.channel, self.address1, self.address0)
        strides = Mux(head.channel, self.stride1, self.stride0)
        reads = []
        address = Signal(16)
        for name, enable in (("words", step), ("rows", step & (self.start | head.end))):
            # A read port without a clock: RAM of LUTs, where the family has any.
            memory = Memory(shape=16, depth=2, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(channel),
                write.data.eq(address),
                write.en.eq(enable),
                read.addr.eq(head.channel),
            ]
            reads.append(read.data)
        total = mux_add(
            m,
            Mux(self.start, 0, Mux(head.end, reads[1], reads[0])),
            self.start,
            starts,
            Mux(head.end, strides, 1),
            Shape(16),
            name="address",
            family=self.config.family,
        )
        m.d.comb += address.eq(total)
        with m.If(advance):
            m.d.sync += payload.address.eq(reads[0])
        return m
