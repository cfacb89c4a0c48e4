"""The norm inside the vector engine: corners of sizes and codes, and its rate."""

from typing import Any

import cocotb
from bench_vector_engine import CONFIG, WORD, Program, ceil_words
from drivers import make_rng

from gateformer.hw.vector_constants import RowConstants
from gateformer.hw.vector_ports import norm_interval

OVERHEAD = 50
"""Cycles of a short row besides those of its constants."""


def _filled(seed: int) -> Program:
    program = Program(make_rng(seed))
    program.norm_gain(8, CONFIG.norm_length)
    program.norm_gain(16, CONFIG.norm_length)
    return program


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def sizes(dut: Any, gap: float) -> None:
    program = _filled(1)
    for channels in (1, 2, 3, WORD // 2, WORD // 2 + 1, WORD - 1, WORD, WORD + 1, 3 * WORD + 2):
        program.norm(4, channels)
        program.norm(3, channels, write8=False)
        program.norm(3, channels, write16=False)
    await program.run(dut, gap=gap)


@cocotb.test()
async def widest_sums(dut: Any) -> None:
    """Rows of all kinds at the full length."""
    program = _filled(2)
    for _ in range(3):
        program.norm(8, CONFIG.norm_length)
    await program.run(dut)


@cocotb.test()
async def rate(dut: Any) -> None:
    """norm_lanes channels a cycle, row after row; a constant for the pipeline."""
    program = _filled(3)
    few, many, channels = 2, 8, CONFIG.norm_length // 2
    for write16 in (False, True):
        program.norm(few, channels, write16=write16)
        program.norm(many, channels, write16=write16)
    program.norm(few, WORD, write16=False)
    program.norm(many, WORD, write16=False)
    _, _, *cycles = await program.run(dut)
    steps = ceil_words(2 * channels) * WORD // 2 // CONFIG.norm_lanes * norm_interval(CONFIG)
    bound = RowConstants(CONFIG).latency + OVERHEAD
    for short, long in (cycles[:2], cycles[2:4]):
        print(f"{(long - short) / (many - few)} cycles a row of {channels}, {long} for {many} rows")
        assert long - short <= (many - few) * (steps + 4)
        assert short <= (few + 1) * steps + bound
    print(f"{(cycles[5] - cycles[4]) / (many - few)} cycles a row of {WORD}")
    assert cycles[5] - cycles[4] <= (many - few) * bound
