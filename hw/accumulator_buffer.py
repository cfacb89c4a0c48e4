"""The RAMs between array and epilogue: one for each row of the array."""

from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature

from gateformer.hw.interfaces import accumulator_shape
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
