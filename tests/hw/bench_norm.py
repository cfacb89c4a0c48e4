"""The norm inside the vector engine: corners of sizes and codes, and its rate."""

from typing import Any

import cocotb
from bench_vector_engine import CONFIG, WORD, Program
from drivers import make_rng

from gateformer.compiler.timing import norm_cycles, table_cycles
from gateformer.spec.isa import Opcode


def _filled(seed: int) -> Program:
    program = Program(make_rng(seed))
    program.norm_gain(8, CONFIG.norm_length)
    program.norm_gain(16, CONFIG.norm_length)
    return program


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def sizes(dut: Any, gap: float) -> None:
    program = _filled(1)
    sizes = (1, 2, 3, WORD // 2, WORD // 2 + 1, WORD - 1, WORD, WORD + 1, 3 * WORD + 2)
    for channels in (size for size in sizes if size <= CONFIG.norm_length):
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
    """The cycles that the compiler counts on: rows of all lengths, one output and both."""
    program = _filled(3)
    sizes = [c for c in (WORD // 2, 16, 64, 128, 192, 384, 768, 1024) if c <= CONFIG.norm_length]
    for channels in sizes:
        for write16 in (False, True):
            for rows in (1, 5):
                program.norm(rows, channels, write16=write16)
    cycles = await program.run(dut, late=True)
    expected = 2 * [table_cycles(CONFIG, Opcode.NORM_GAIN, CONFIG.norm_length)]
    for order in program.instructions[2:]:
        expected.append(norm_cycles(CONFIG, order["rows"], order["channels"]))
    print("cycles and those expected:", list(zip(cycles, expected, strict=True)))
    assert all(abs(x - y) <= 1 for x, y in zip(cycles, expected, strict=True))
