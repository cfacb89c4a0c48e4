"""The epilogue's small queues."""

from typing import Any

from amaranth import Module, Shape, ShapeLike, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out


class Queue(Component):
    """A first-in first-out buffer of `depth` entries, a power of two; one of them at its output.

    An entry pushed in one cycle is `head` two cycles later at the earliest; one entry a cycle goes
    in and out. `push` only while `room`, `pop` only while `valid`. Whoever never has more than
    `depth` entries under way may leave `room` unread. `room` is a register; it knows of a pop only
    a cycle later, and leaves up to two entries unused.
    """

    push: Signal
    data: Any
    room: Signal
    pop: Signal
    head: Any
    valid: Signal
    empty: Signal

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "push": In(1),
                "data": In(shape),
                "room": Out(1),
                "pop": In(1),
                "head": Out(shape),
                "valid": Out(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Only what was written in an earlier cycle is read, and at most depth - 1 entries are in
        # the memory: no address is read and written in one cycle.
        m.submodules.memory = memory = Memory(
            shape=Shape.cast(self.shape).width,
            depth=self.depth,
            init=[],
            attrs={"no_rw_check": 1},
        )
        write = memory.write_port()
        read = memory.read_port()
        first = Signal(range(self.depth))
        last = Signal(range(self.depth))
        stored = Signal(range(self.depth))
        m.d.sync += self.room.eq(stored < self.depth - 2)
        m.d.comb += [
            stored.eq(last - first),
            self.empty.eq((first == last) & ~self.valid),
            write.addr.eq(last),
            write.data.eq(self.data),
            write.en.eq(self.push),
            read.addr.eq(first),
            read.en.eq((first != last) & (~self.valid | self.pop)),
            self.head.eq(read.data),
        ]
        with m.If(self.push):
            m.d.sync += last.eq(last + 1)
        with m.If(read.en):
            m.d.sync += [first.eq(first + 1), self.valid.eq(1)]
        with m.Elif(self.pop):
            m.d.sync += self.valid.eq(0)
        return m


class Outstanding(Component):
    """Counts what was begun and not yet finished: at most `limit`.

    `begin` only while `room`, which is a register. An end is counted a cycle later, since its
    `finish` comes a long way.
    """

    begin: Signal
    finish: Signal
    room: Signal
    none: Signal

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__({"begin": In(1), "finish": In(1), "room": Out(1), "none": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(range(self.limit + 1))
        finished = Signal()
        m.d.comb += self.none.eq(count == 0)
        m.d.sync += [
            finished.eq(self.finish),
            count.eq(count + self.begin - finished),
            self.room.eq(count < self.limit - 1),
        ]
        return m
