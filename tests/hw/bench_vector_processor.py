"""The vector processor: programs of all its instructions, corners, and its pace."""

from typing import Any

import cocotb
import numpy as np
from bench_vector_engine import CONFIG, WORD, Program, without_work
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, read_latency, start

from gateformer.compiler.timing import norm_cycles, softmax_cycles, table_cycles
from gateformer.spec.isa import Opcode, instruction


def _mixed(seed: int) -> Program:
    """Each instruction some times, with few elements."""
    program = Program(make_rng(seed))
    rng = program.rng
    program.exp_table()
    program.norm_gain(16, CONFIG.norm_length)
    program.norm_gain(8, CONFIG.norm_length)
    for outputs in ((True, True), (True, False), (False, True)):
        length = rng.randrange(1, 3 * WORD)
        bound = rng.choice((0, 1, length, 4095))
        program.softmax(rng.randrange(1, 3), length, bound, causal=rng.random() < 0.5)
        channels = rng.randrange(1, CONFIG.norm_length + 1)
        program.norm(rng.randrange(1, 3), channels, write8=outputs[0], write16=outputs[1])
    kept = program.gains[8][:, 2:]
    program.norm_gain(8, 2)
    program.gains[8] = np.concatenate([program.gains[8], kept], axis=1)
    program.norm(1, CONFIG.norm_length)
    return program


DURATIONS: list[int] = []


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.5])
async def same_program(dut: Any, gap: float) -> None:
    """Stalls cost time and change nothing else."""
    DURATIONS.append(sum(await _mixed(1).run(dut, gap=gap)))
    assert sorted(set(DURATIONS)) == DURATIONS


@cocotb.test()
async def lengths_and_bounds(dut: Any) -> None:
    program = Program(make_rng(2))
    program.exp_table()
    for length in (1, WORD - 1, WORD, WORD + 1):
        for bound in sorted({0, 1, length, 4095}):
            program.softmax(1, length, bound)
    program.softmax(WORD + 1, WORD, 0, causal=True)
    await program.run(dut)


@cocotb.test()
async def whole_table(dut: Any) -> None:
    """A row with every score, and rows of the least and the largest one."""
    program = Program(make_rng(3))
    program.exp_table()
    program.softmax(1, 256, 256, scores=np.arange(-128, 128, dtype=np.int8)[None])
    rows = np.array([[-128] * 9, [127] * 9, [127] + [-128] * 8], np.int8)
    program.softmax(3, 9, 9, scores=rows)
    await program.run(dut)


@cocotb.test()
async def rows_of_all_kinds(dut: Any) -> None:
    program = Program(make_rng(4))
    program.norm_gain(8, CONFIG.norm_length)
    program.norm_gain(16, CONFIG.norm_length)
    for channels in (1, 2, 3, WORD // 2 + 1, CONFIG.norm_length):
        program.norm(5, channels)
    await program.run(dut)


@cocotb.test()
async def nothing_to_do(dut: Any) -> None:
    """Sizes of 0 write nothing, and end when the fields are read."""
    program = without_work(make_rng(5))
    cycles = await program.run(dut)
    assert all(count <= 100 for count in cycles[1:-1]), cycles


@cocotb.test()
async def resets(dut: Any) -> None:
    """A reset of one cycle at any time of an instruction leaves nothing behind."""
    program = _mixed(7)
    norm = instruction(Opcode.NORM, rows=9, channels=1, write8=1, write16=1)
    dut.read__request__ready.value = dut.write__request__ready.value = 1
    dut.read__response_valid.value = 0
    await start(dut)
    dut.instructions__stream__payload.value = int.from_bytes(norm.encode().tobytes(), "little")
    dut.instructions__stream__valid.value = 1
    asked = [0] * (read_latency() - 1)
    for _ in range(200):
        for reset in (0,) * program.rng.randrange(50, 500) + (1,):
            dut.rst.value = reset
            dut.read__response_valid.value = asked.pop(0)
            await ReadOnly()
            asked.append(int(dut.read__request__valid.value))
            await FallingEdge(dut.clk)
    dut.instructions__stream__valid.value = 0
    await program.run(dut)


@cocotb.test()
async def pace(dut: Any) -> None:
    """The cycles that the compiler counts on, but for what it takes to read fields."""
    program = Program(make_rng(6))
    program.exp_table()
    program.norm_gain(8, CONFIG.norm_length)
    program.norm_gain(16, CONFIG.norm_length)
    program.softmax(3, 64, 64)
    program.norm(3, CONFIG.norm_length)
    program.norm(4, CONFIG.norm_length, write16=False)
    cycles = await program.run(dut, late=True)
    expected = []
    for order in program.instructions:
        match order.opcode:
            case Opcode.SOFTMAX:
                expected.append(softmax_cycles(CONFIG, order["rows"], order["length"]))
            case Opcode.NORM:
                outputs = order["write8"] + order["write16"]
                expected.append(norm_cycles(CONFIG, order["rows"], order["channels"], outputs))
            case _:
                expected.append(table_cycles(CONFIG, order.opcode, order["count"]))
    print("cycles and those expected:", list(zip(cycles, expected, strict=True)))
    assert all(abs(x - y) <= 200 + 0.05 * y for x, y in zip(cycles, expected, strict=True))
