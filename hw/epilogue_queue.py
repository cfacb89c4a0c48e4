"""The epilogue's small queues."""

from typing import Any

from amaranth import Cat, Module, Shape, ShapeLike, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

_TAPS = {3: 1, 4: 2, 5: 2, 6: 4, 7: 5}
"""For each width a bit that, with the highest, feeds a shift register of the longest period."""


def _following(pointer: Value) -> Value:
    """The next in a sequence of all values of a pointer: a shift register with feedback.

    It takes one LUT where a counter takes one a bit. The zero is let in by a term that is 1 when
    all bits below the highest are 0 (a de Bruijn sequence; Golomb, Shift Register Sequences, VI).
    """
    high = len(pointer) - 1
    feedback = pointer[high] ^ pointer[_TAPS[len(pointer)]] ^ ~pointer[:high].any()
    return Cat(feedback, pointer[:high])


class Queue(Component):
    """A first-in first-out buffer of `depth` entries, 8, 16, 32, 64 or 128; one at its output.

    An entry pushed in one cycle is `head` two cycles later at the earliest; one entry a cycle goes
    in and out. `pop` only while `valid`. Whoever pushes counts what is under way: at most `depth`
    entries.
    """

    push: Signal
    data: Any
    pop: Signal
    head: Any
    valid: Signal

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "push": In(1),
                "data": In(shape),
                "pop": In(1),
                "head": Out(shape),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Only what was written in an earlier cycle is read, and with an entry at the output at most
        # depth - 1 are in the memory: no address is read and written in one cycle.
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
        m.d.comb += [
            write.addr.eq(last),
            write.data.eq(self.data),
            write.en.eq(self.push),
            read.addr.eq(first),
            read.en.eq((first != last) & (~self.valid | self.pop)),
            self.head.eq(read.data),
        ]
        with m.If(self.push):
            m.d.sync += last.eq(_following(last))
        with m.If(read.en):
            m.d.sync += [first.eq(_following(first)), self.valid.eq(1)]
        with m.Elif(self.pop):
            m.d.sync += self.valid.eq(0)
        return m


class Outstanding(Component):
    """Counts what was begun and not yet finished: at most `limit`, a power of two from 8 on.

    `begin` only while `room`, a register.
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
        count = Signal(self.limit.bit_length())
        room = Signal(init=1)
        m.d.comb += [self.none.eq(count == 0), self.room.eq(room)]
        with m.If(self.begin & ~self.finish):
            m.d.sync += [count.eq(count + 1), room.eq(count != self.limit - 1)]
        with m.Elif(self.finish & ~self.begin):
            m.d.sync += [count.eq(count - 1), room.eq(1)]
        return m
