"""Queues, addresses and puts together the groups that the vector units write."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LocalWrite, local_write_layout, pipelined
from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.vector_ports import group_bytes, out_layout
from gateformer.spec.config import AcceleratorConfig

UNIT = 8
"""Bytes that are written together: a scale record, a word of the smallest kind."""


class RowWriter(Component):
    """A queue of groups, and the addresses of two channels.

    `start` is 1 for two cycles, with `channel` 0 and then 1: channel c begins at `address{c}`, its
    rows `stride{c}` words apart. `push` appends `group` to the queue, never more than one group a
    cycle. It can not be refused: `room` says that half of the queue is free, which is more than a
    unit has on its way. UNIT bytes are written at a time, fewer at the end of a row, and with
    `single` the groups of channel 0 alone. Of a row's last group the bytes in `tail{c}` are
    written. `done` is 1 for the cycle in which the final group is taken.
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
        size = group_bytes(self.config)
        slots = self.config.word_bytes // size

        unit = self._requests(m)

        head = Signal(out_layout(self.config), reset_less=True)
        head_valid = Signal()
        advance = Signal()
        m.d.comb += advance.eq(head_valid & (~unit.valid | unit.ready))
        self._queue(m, head, head_valid, advance)

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
        payload = unit.payload.write
        with m.If(unit.ready):
            m.d.sync += unit.valid.eq(0)
        with m.If(advance):
            m.d.sync += [unit.valid.eq(send), unit.payload.final.eq(head.final)]
            for i in range(slots):
                mask = payload.mask.word_select(i, size)
                with m.If(slot == i):
                    m.d.sync += [payload.data.word_select(i, 8 * size).eq(head.data), mask.eq(tail)]
                with m.Elif(first):
                    m.d.sync += mask.eq(0)
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

    def _queue(self, m: Module, head: Any, head_valid: Signal, advance: Signal) -> None:
        """Groups wait for their turn; the next one is `head`."""
        # A place is read only when it was written in an earlier cycle and written when it was read
        # before: no address is read and written in one cycle.
        width = out_layout(self.config).size
        m.submodules.queue = queue = WordRam(
            depth=self.DEPTH,
            width_bytes=-(-width // 8),
            registered=pipelined(self.config),
            stallable=True,
            family=self.config.family,
        )
        level = Signal(range(self.DEPTH + 1))
        # What is on its way from the queue, stage by stage; the last one is `head`.
        leaving = Signal(queue.latency + 1)
        fetch = Signal()
        flow = Signal()
        m.d.comb += [
            queue.write_data.eq(self.group),
            queue.write_mask.eq(self.push.replicate(len(queue.write_mask))),
            queue.read_enable.eq(flow),
            head_valid.eq(leaving[-1]),
            flow.eq(~head_valid | advance),
            fetch.eq((level != 0) & flow),
        ]
        m.d.sync += [
            queue.write_address.eq(queue.write_address + self.push),
            queue.read_address.eq(queue.read_address + fetch),
            level.eq(level + self.push - fetch),
            self.room.eq(~level[-2:].any()),
        ]
        with m.If(flow):
            m.d.sync += [leaving.eq(Cat(fetch, leaving)), head.eq(queue.read_data)]

    def _requests(self, m: Module) -> Any:
        """A stream of units to write, and whether each is the job's final one."""
        request = self.write.request
        layout = data.StructLayout({"write": local_write_layout(self.config), "final": 1})
        unit = stream.Signature(layout).create(path=("unit",))
        final = Signal(reset_less=True)
        if pipelined(self.config):
            # The next unit is put together while local memory lets this one wait.
            with m.If(unit.ready):
                m.d.sync += [
                    request.valid.eq(unit.valid),
                    request.payload.eq(unit.payload.write),
                    final.eq(unit.payload.final),
                ]
            m.d.comb += unit.ready.eq(~request.valid | request.ready)
        else:
            m.d.comb += [
                request.valid.eq(unit.valid),
                request.payload.eq(unit.payload.write),
                final.eq(unit.payload.final),
                unit.ready.eq(request.ready),
            ]
        m.d.comb += self.done.eq(request.valid & request.ready & final)
        return unit
