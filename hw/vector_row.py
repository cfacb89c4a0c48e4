"""For units that take rows in groups of lanes: which lanes count, and where rows wait."""

from amaranth import Cat, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out


class LaneCounter(Component):
    """Which lanes of the group at hand are among the first `total` elements of the row.

    `load` makes the next cycle's group the first of a row; otherwise `advance` moves on to the next
    group. `total` is read with `load`.
    """

    load: Signal
    total: Signal
    advance: Signal
    counted: Signal

    def __init__(self, *, lanes: int, bits: int) -> None:
        self.lanes = lanes
        super().__init__(
            {"load": In(1), "total": In(bits), "advance": In(1), "counted": Out(lanes)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane_bits = self.lanes.bit_length() - 1
        left = Signal.like(self.total, reset_less=True)
        low, high = left[:lane_bits], left[lane_bits:]
        m.d.comb += self.counted.eq(
            Cat(high.any() | (low > lane) for lane in range(self.lanes)),
        )
        with m.If(self.load):
            m.d.sync += left.eq(self.total)
        with m.Elif(self.advance):
            with m.If(high.any()):
                m.d.sync += high.eq(high - 1)
            with m.Else():
                m.d.sync += low.eq(0)
        return m


class WordCounter(Component):
    """Whether the word at hand is the `last` of a row of `words` words (at least 1).

    `load` makes the next cycle's word the first of a row; otherwise `advance` moves on to the next
    word. `last` comes from a register, since all that moves a row waits for it.
    """

    load: Signal
    words: Signal
    advance: Signal
    last: Signal

    def __init__(self, *, bits: int) -> None:
        super().__init__({"load": In(1), "words": In(bits), "advance": In(1), "last": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal.like(self.words, reset_less=True)
        with m.If(self.load):
            m.d.sync += [left.eq(self.words), self.last.eq(self.words == 1)]
        with m.Elif(self.advance):
            m.d.sync += [left.eq(left - 1), self.last.eq(left == 2)]
        return m


class RowRing(Component):
    """Rows between a unit's first and second pass: a ring of `groups` groups, a power of two.

    `allow` says that a word of `steps` groups has room; `issue` takes that room. Each `write`
    appends a group. `read` takes the oldest group, on `read_data` in the next cycle. `release`,
    with the `read` of a word's last group, gives the word's room back.
    """

    allow: Signal
    issue: Signal
    write: Signal
    write_data: Signal
    read: Signal
    read_data: Signal
    release: Signal

    def __init__(self, *, group_bits: int, groups: int, steps: int) -> None:
        self.groups = groups
        self.steps = steps
        super().__init__(
            {
                "allow": Out(1),
                "issue": In(1),
                "write": In(1),
                "write_data": In(group_bits),
                "read": In(1),
                "read_data": Out(group_bits),
                "release": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A group is read after it was written, and written again only after its word's release,
        # at least a memory access later: no address is read and written in one cycle.
        memory = Memory(
            shape=len(self.write_data), depth=self.groups, init=[], attrs={"no_rw_check": 1}
        )
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()
        free = Signal(range(self.groups // self.steps + 1), init=self.groups // self.steps)
        m.d.comb += [
            write.en.eq(self.write),
            write.data.eq(self.write_data),
            read.en.eq(self.read),
            self.read_data.eq(read.data),
            self.allow.eq(free != 0),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + self.write),
            read.addr.eq(read.addr + self.read),
            free.eq(free + self.release - self.issue),
        ]
        return m


def ring_groups(length: int, lanes: int) -> int:
    """Groups of a ring that holds two rows of `length` elements."""
    return 1 << (2 * length // lanes - 1).bit_length()
