"""Between the passes: where rows wait, how they are replayed, and how groups are cut up."""

from typing import Any, Literal

from amaranth import Cat, Module, Shape, Signal
from amaranth.hdl import Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.adder import mux_add
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.vector_ports import Replay, group_bytes, hold_shape, row_words
from gateformer.spec.config import AcceleratorConfig


class RowRing(Component):
    """Groups between a row's first and second pass: a ring with place for two rows.

    `write` appends a group; `read` takes the oldest one, which is on `read_data` from LATENCY
    cycles later on until the next one. While there is `room`, which is a few cycles late, another
    word may begin; a row and a half always has.
    """

    LATENCY = 3
    LEAST = 64

    write: Signal
    write_data: Signal
    read: Signal
    read_data: Signal
    room: Signal

    def __init__(
        self, *, group_bits: int, row_groups: int, family: Literal["generic", "ecp5", "ice40"]
    ) -> None:
        self.family = family
        self.groups = max(1 << (2 * row_groups - 1).bit_length(), self.LEAST)
        super().__init__(
            {
                "write": In(1),
                "write_data": In(group_bits),
                "read": In(1),
                "read_data": Out(group_bits),
                "room": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A row is read after it was written, and the ring is never full: no address is read and
        # written in one cycle.
        size = -(-len(self.write_data) // 8)
        m.submodules.memory = memory = WordRam(
            depth=self.groups, width_bytes=size, family=self.family
        )
        # The address of the last group that was read, so that it stays.
        address = Signal.like(memory.read_address, init=-1)
        m.d.comb += [
            memory.write_mask.eq(self.write.replicate(size)),
            memory.write_data.eq(self.write_data),
            memory.read_address.eq(address),
            self.read_data.eq(memory.read_data),
        ]
        level = Signal(range(self.groups))
        one = Cat(1, (~self.write).replicate(len(level) - 1))
        with m.If(self.write != self.read):
            m.d.sync += level.eq(level + one)
        m.d.sync += [
            memory.write_address.eq(memory.write_address + self.write),
            address.eq(address + self.read),
            self.room.eq(~level[-2:].all()),
        ]
        return m


class RowReplay(Component):
    """Sends the rows in the ring on their second pass.

    A row of `last_word` + 1 words starts when it is `ready`: `load` is 1 in the cycle before its
    first `go`. A word starts only while there is `room` and `insert` is 0. Groups are `hold` + 1
    cycles apart. `between`, with `insert`, says that this and the next cycles, until `insert` is 0
    again, belong to the caller. `held_up`: no row's last word starts.
    """

    ready: Signal
    final: Signal
    last_word: Signal
    hold: Signal
    room: Signal
    insert: Signal
    held_up: Signal
    load: Signal
    between: Signal
    replay: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "ready": In(1),
                "final": In(1),
                "last_word": In(range(row_words(config))),
                "hold": In(hold_shape(config)),
                "room": In(1),
                "insert": In(1),
                "held_up": In(1),
                "load": Out(1),
                "between": Out(1),
                "replay": Out(Replay()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        replay = self.replay
        slots = self.config.word_bytes // group_bytes(self.config)
        running = Signal()
        # Words to replay besides the one at hand, less one: the sign tells the last.
        words = Signal(Shape(len(self.last_word) + 1, signed=True), reset_less=True)
        less = mux_add(
            m,
            -1,
            self.load,
            self.last_word,
            words,
            words.shape(),
            name="words",
            family=self.config.family,
        )
        slot = Signal(range(slots))
        held = Signal.like(self.hold)
        first = Signal(reset_less=True)
        last = words[-1]
        word_begin = Signal()
        word_end = Signal()
        room = Signal()
        m.d.comb += [
            room.eq(self.room | ~word_begin),
            word_begin.eq((slot == 0) & (held == 0)),
            word_end.eq(slot == slots - 1),
            self.load.eq(self.ready & ~running & (held == 0)),
            self.between.eq(self.insert & word_begin & self.room),
            replay.go.eq(
                running
                & (held == 0)
                & room
                & (~word_begin | ~(self.insert | (last & self.held_up)))
            ),
            replay.begin.eq(first),
            replay.end.eq(word_end & last),
        ]
        with m.If(replay.go):
            m.d.sync += first.eq(0)
            m.d.sync += [held.eq(self.hold), slot.eq(slot + 1)]
            with m.If(word_end):
                m.d.sync += slot.eq(0)
                with m.If(last):
                    m.d.sync += running.eq(0)
        with m.Elif(held != 0):
            m.d.sync += held.eq(held - 1)
        with m.If(self.load | (replay.go & word_end)):
            m.d.sync += words.eq(less)
        with m.If(self.load):
            m.d.sync += [running.eq(1), first.eq(1), replay.final.eq(self.final)]
        return m


class Pieces(Component):
    """Cuts groups into `count` pieces of `bits` bits, `interval` cycles apart.

    `valid` marks a group's first cycle; group, mask and end stay until all pieces have left. `take`
    is 1 for the cycle of a piece, the first one in that of `valid`; `last` with the last piece of a
    group with `end`.
    """

    valid: Signal
    group: Signal
    mask: Signal
    end: Signal
    take: Signal
    piece: Signal
    counted: Signal
    last: Signal

    def __init__(self, *, group_bits: int, mask_bits: int, count: int, interval: int) -> None:
        self.count = count
        self.interval = interval
        super().__init__(
            {
                "valid": In(1),
                "group": In(group_bits),
                "mask": In(mask_bits),
                "end": In(1),
                "take": Out(1),
                "piece": Out(group_bits // count),
                "counted": Out(mask_bits // count),
                "last": Out(1),
            }
        )

    def cut(self, m: Module, source: Any, wanted: Value) -> None:
        """Takes the groups of a `GroupSource` that come while `wanted` is 1."""
        m.d.comb += [
            self.valid.eq(source.valid & wanted),
            self.group.eq(source.group),
            self.mask.eq(source.mask),
            self.end.eq(source.end),
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        turns: list[Value] = [self.valid]
        turn: Value = self.valid
        for delay in range(1, (self.count - 1) * self.interval + 1):
            following = Signal(name=f"turn_{delay}")
            m.d.sync += following.eq(turn)
            turn = following
            if delay % self.interval == 0:
                turns.append(turn)
        m.d.comb += [
            self.take.eq(Cat(turns).any()),
            self.last.eq(turns[-1] & self.end),
            self.piece.eq(self.group[: len(self.piece)]),
            self.counted.eq(self.mask[: len(self.counted)]),
        ]
        for i in range(1, self.count):
            with m.If(turns[i]):
                m.d.comb += [
                    self.piece.eq(self.group.word_select(i, len(self.piece))),
                    self.counted.eq(self.mask.word_select(i, len(self.counted))),
                ]
        return m
