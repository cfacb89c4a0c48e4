"""The RAMs between array and epilogue: one for each row of the array."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import accumulator_shape, pipelined
from gateformer.hw.primitives.adder import wrapped
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.config import AcceleratorConfig

SUMS_LATENCY = 3
"""Cycles from `column` and `set` to `sums`."""


class AccumulatorRead(Signature):
    """The read side of the accumulator buffer, seen from the buffer (the epilogue takes In(...)).

    `tile_valid`: the oldest tile is complete. While it is 1, exactly SUMS_LATENCY cycles after
    `column` and `set` are presented, `sums` holds that column of that set of rows, lane l being row
    set * epilogue_lanes + l. A new address may be presented every cycle.

    `release` for one cycle, only while `tile_valid`, frees the oldest tile: in that cycle the
    last address of it may still be presented; from the next cycle `tile_valid` and the addresses
    speak of the next tile. Sums of addresses presented until then still arrive.
    """

    SUMS_LATENCY = SUMS_LATENCY

    def __init__(self, config: AcceleratorConfig) -> None:
        sets = config.rows // config.epilogue_lanes
        super().__init__(
            {
                "tile_valid": Out(1),
                "column": In(range(config.cols)),
                "set": In(range(sets)),
                "sums": Out(data.ArrayLayout(accumulator_shape(config), config.epilogue_lanes)),
                "release": In(1),
            }
        )


class AccumulatorBuffer(Component):
    """Keeps `accumulator_tiles` tiles of sums in the order in which they left the array.

    `sum_valid` and `sums` are the array's: row 0 gives columns 0 to cols - 1 in
    consecutive cycles, row i follows i cycles later. Whoever starts a tile has made sure of a slot;
    `tiles.release` gives one back. A tile is valid one cycle after its last sum came.

    The RAMs are read in every cycle; what is used was written before: it is of a valid tile, and
    only slots without one are written.
    """

    sum_valid: Signal
    sums: data.View
    tiles: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "sum_valid": In(1),
                "sums": In(data.ArrayLayout(accumulator_shape(config), config.rows)),
                "tiles": Out(AccumulatorRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        lanes, sets = config.epilogue_lanes, config.rows // config.epilogue_lanes
        tiles = self.tiles

        def next_slot(slot: Signal) -> Value:
            return wrapped(m, slot + 1, config.accumulator_tiles, name=f"next_{slot.name}")

        write_slot = Signal(range(config.accumulator_tiles))
        write_column = Signal(range(config.cols))
        tile_written = self.sum_valid & (write_column == config.cols - 1)
        with m.If(self.sum_valid):
            m.d.sync += write_column.eq(Mux(tile_written, 0, write_column + 1))
        with m.If(tile_written):
            m.d.sync += write_slot.eq(next_slot(write_slot))

        m.submodules.complete = complete = Credits(config.accumulator_tiles)
        read_slot = Signal(range(config.accumulator_tiles))
        m.d.comb += [tiles.tile_valid.eq(complete.available), complete.take.eq(tiles.release)]
        with m.If(tiles.release):
            m.d.sync += read_slot.eq(next_slot(read_slot))

        # Of the three cycles, two are the RAM's where its word is registered, and one the choice's.
        # What is left is spent on the address.
        registered = pipelined(config)
        read_address: Value = Cat(tiles.column, read_slot)
        for stage in range(SUMS_LATENCY - (1 + registered) - (sets > 1)):
            early = Signal(len(read_address), name=f"early_{stage}", reset_less=True)
            m.d.sync += early.eq(read_address)
            read_address = early

        write_enable: Value = self.sum_valid
        write_address: Value = Cat(write_column, write_slot)
        done: Value = tile_written
        words = []
        for row in range(config.rows):
            if row:
                delayed = (
                    Signal(name=f"write_enable_{row}"),
                    Signal(len(write_address), name=f"write_address_{row}", reset_less=True),
                    Signal(name=f"done_{row}"),
                )
                m.d.sync += [
                    delayed[0].eq(write_enable),
                    delayed[1].eq(write_address),
                    delayed[2].eq(done),
                ]
                write_enable, write_address, done = delayed
            ram = WordRam(
                depth=1 << len(write_address),
                width_bytes=-(-config.accumulator_bits // 8),
                registered=registered,
                family=config.family,
            )
            m.submodules[f"ram_{row}"] = ram
            m.d.comb += [
                ram.write_address.eq(write_address),
                ram.write_data[: config.accumulator_bits].eq(self.sums[row]),
                ram.write_mask.eq(write_enable.replicate(len(ram.write_mask))),
                ram.read_address.eq(read_address),
            ]
            words.append(ram.read_data[: config.accumulator_bits].as_signed())
        m.d.comb += complete.give.eq(done)

        if sets == 1:
            m.d.comb += [tiles.sums[lane].eq(words[lane]) for lane in range(lanes)]
            return m
        chosen = tiles.set
        for stage in range(SUMS_LATENCY - 1):
            chosen_delayed = Signal.like(tiles.set, name=f"set_{stage}", reset_less=True)
            m.d.sync += chosen_delayed.eq(chosen)
            chosen = chosen_delayed
        sums = Signal.like(tiles.sums, reset_less=True)
        m.d.sync += [sums[lane].eq(Array(words[lane::lanes])[chosen]) for lane in range(lanes)]
        m.d.comb += tiles.sums.eq(sums)
        return m
