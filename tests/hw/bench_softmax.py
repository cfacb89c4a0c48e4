"""Softmax inside the vector engine: corners of lengths and bounds, and its rate."""

from typing import Any

import cocotb
import numpy as np
from bench_vector_engine import CONFIG, WORD, Program
from drivers import make_rng

from gateformer.compiler.timing import softmax_cycles, table_cycles
from gateformer.spec.isa import Opcode


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def lengths_and_bounds(dut: Any, gap: float) -> None:
    program = Program(make_rng(1))
    program.exp_table()
    for length in (1, 2, WORD - 1, WORD, WORD + 1, 3 * WORD, 3 * WORD + 2):
        for bound in sorted({0, 1, length - 1, length, 4095}):
            program.softmax(3, length, bound, causal=bound % 2 == 1)
    await program.run(dut, gap=gap)


@cocotb.test()
async def causal(dut: Any) -> None:
    program = Program(make_rng(2))
    program.exp_table()
    program.softmax(40, 40, 1, causal=True)
    program.softmax(40, 33, 0, causal=True)
    await program.run(dut)


@cocotb.test()
async def extreme_scores(dut: Any) -> None:
    program = Program(make_rng(3))
    program.exp_table()
    rows = np.array([[-128] * 19, [127] * 19, [127] + [-128] * 18, [-128] * 18 + [127]], np.int8)
    program.softmax(4, 19, 19, scores=rows)
    program.softmax(4, 19, 18, scores=rows)
    await program.run(dut)


@cocotb.test()
async def every_score_below_every_maximum(dut: Any) -> None:
    """All pairs of a row's largest score and a score: every entry of the table, every way there."""
    program = Program(make_rng(5))
    program.exp_table()
    codes = np.arange(-128, 128)
    rows = np.minimum(codes[:, None], codes[None, :]).astype(np.int8)
    for first in range(0, 256, 32):
        program.softmax(32, 256, 256, scores=rows[first : first + 32])
    await program.run(dut)


@cocotb.test()
async def rate(dut: Any) -> None:
    """The cycles that the compiler counts on, for 5 rows up to one a row."""
    program = Program(make_rng(4))
    program.exp_table()
    for length in (n for n in (1, 32, 64, 128, 197, 256, 512) if n <= CONFIG.softmax_length):
        for rows in (1, 5):
            program.softmax(rows, length, length)
    cycles = await program.run(dut, late=True)
    expected = [table_cycles(CONFIG, Opcode.EXP_TABLE, 256)]
    for order in program.instructions[1:]:
        expected.append(softmax_cycles(CONFIG, order["rows"], order["length"]))
    print("cycles and those expected:", list(zip(cycles, expected, strict=True)))
    # Reading keeps no pace of a word a cycle, as the compiler believes.
    slack = 0.15 if CONFIG.softmax_lanes == WORD else 0.0
    assert all(abs(x - y) <= 5 + slack * y for x, y in zip(cycles, expected, strict=True))
