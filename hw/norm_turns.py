"""Constants of several rows of a norm at a time: units that take turns."""

from typing import Any

from amaranth import Array, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.vector_constants import (
    CONSTANT_BITS,
    RowConstants,
    count_bits,
    squares_shape,
    total_shape,
)
from gateformer.spec.config import AcceleratorConfig


class ConstantsTurns(Component):
    """`config.norm_constants` units of RowConstants, at least two, which take rows in turns.

    `start` is heeded while there is `room`: `total` and `squares` are those of the next row, and
    `final` whether it is the job's last. They must stay until `freed`, which is 1 for a cycle
    RowConstants.sums_cycles after the start, and `count` always. While `ready` is 1, `factor`,
    `offset` and `row_final` are those of the oldest row that is not `taken`; RowConstants.latency
    after its start at the earliest. `position` and `epsilon_bit` as there.
    """

    start: Signal
    room: Signal
    freed: Signal
    total: Signal
    squares: Signal
    count: Signal
    final: Signal
    position: Signal
    epsilon_bit: Signal
    ready: Signal
    taken: Signal
    row_final: Signal
    factor: Signal
    offset: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "room": Out(1),
                "freed": Out(1),
                "total": In(total_shape(config)),
                "squares": In(squares_shape(config)),
                "count": In(count_bits(config)),
                "final": In(1),
                "position": Out(5),
                "epsilon_bit": In(1),
                "ready": Out(1),
                "taken": In(1),
                "row_final": Out(1),
                "factor": Out(CONSTANT_BITS),
                "offset": Out(CONSTANT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self.config.norm_constants
        newest = Signal(range(count))
        oldest = Signal(range(count))
        # The unit that was started last: epsilon and squares are its own.
        reader = Signal(range(count))
        begins = Signal()
        m.d.comb += begins.eq(self.start & self.room)
        units: list[Any] = []
        used = Signal(count)
        ready = Signal(count)
        finals = Signal(count)
        for index in range(count):
            unit = RowConstants(self.config)
            m.submodules[f"unit_{index}"] = unit
            units.append(unit)
            # The sum is wanted again when the row's factor is known.
            total = Signal.like(self.total, name=f"total_{index}", reset_less=True)
            m.d.comb += [
                unit.start.eq(begins & (newest == index)),
                unit.total.eq(total),
                unit.squares.eq(self.squares),
                unit.count.eq(self.count),
                unit.epsilon_bit.eq(self.epsilon_bit),
            ]
            with m.If(unit.start):
                m.d.sync += [
                    total.eq(self.total),
                    finals[index].eq(self.final),
                    used[index].eq(1),
                ]
            done = self.taken & (oldest == index)
            m.d.sync += ready[index].eq(used[index] & ~unit.busy & ~done)
            with m.If(done):
                m.d.sync += used[index].eq(0)
        with m.If(begins):
            m.d.sync += [newest.eq(newest + 1), reader.eq(newest)]
        with m.If(self.taken):
            m.d.sync += oldest.eq(oldest + 1)

        # The squares are read bit by bit, behind the start.
        cycles = units[0].sums_cycles
        left = Signal(range(cycles), reset_less=True)
        reading = Signal()
        m.d.comb += self.freed.eq(reading & (left == 0))
        m.d.sync += left.eq(left - 1)
        with m.If(begins):
            m.d.sync += [left.eq(cycles - 1), reading.eq(1)]
        with m.Elif(self.freed):
            m.d.sync += reading.eq(0)
        m.d.comb += [
            self.room.eq(~Array(used)[newest] & ~reading),
            self.position.eq(Array(unit.position for unit in units)[reader]),
            self.ready.eq(Array(ready)[oldest]),
            self.row_final.eq(Array(finals)[oldest]),
            self.factor.eq(Array(unit.factor for unit in units)[oldest]),
            self.offset.eq(Array(unit.offset for unit in units)[oldest]),
        ]
        return m
