"""The array alone: skewed operands, random gaps between steps, junk wherever none is due."""

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.hw.systolic_array import SystolicArray
from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
ROWS, COLS, LANES = CONFIG.rows, CONFIG.cols, CONFIG.lanes
LATENCY = SystolicArray(CONFIG).latency


def _pack(operands: list[int]) -> int:
    return sum((value & 0xFF) << 8 * i for i, value in enumerate(operands))


async def _run(dut: Any, seed: int, tiles: int, gap: float, extremes: bool) -> None:
    rng = make_rng(seed)
    dut.valid.value = 0
    await start(dut)
    await _tiles(dut, rng, tiles, gap, extremes)


async def _tiles(dut: Any, rng: random.Random, tiles: int, gap: float, extremes: bool) -> None:
    values = (-128, 127) if extremes else range(-128, 128)
    steps_at: dict[int, tuple[Any, Any, bool]] = {}
    expected: dict[int, Any] = {}
    cycle, last_before = 0, -COLS
    for _ in range(tiles):
        steps = rng.choice((1, 2, COLS, COLS + 1, 9))
        total = np.zeros((ROWS, COLS), np.int64)
        for step in range(steps):
            while rng.random() < gap:
                cycle += 1
            if step == steps - 1:
                cycle = max(cycle, last_before + COLS)
                last_before = cycle
                expected[cycle + LATENCY] = total
            a = np.array([[rng.choice(values) for _ in range(LANES)] for _ in range(ROWS)])
            b = np.array([[rng.choice(values) for _ in range(LANES)] for _ in range(COLS)])
            total += a @ b.T
            steps_at[cycle] = (a, b, step == steps - 1)
            cycle += 1
    width = CONFIG.accumulator_bits
    seen = 0
    due: dict[tuple[int, int], int] = {}
    for begin, total in expected.items():
        for row in range(ROWS):
            for column in range(COLS):
                due[begin + row + column, row] = int(total[row, column])
    for now in range(cycle + LATENCY + ROWS + COLS + 2):
        _, _, last = steps_at.get(now, (None, None, rng.random() < 0.5))
        dut.valid.value = int(now in steps_at)
        dut.last.value = int(last)
        rows, columns = 0, 0
        for i in range(ROWS):
            step = steps_at.get(now - i)
            word = _pack(step[0][i].tolist()) if step else rng.getrandbits(8 * LANES)
            rows |= word << 8 * LANES * i
        for j in range(COLS):
            step = steps_at.get(now - j)
            word = _pack(step[1][j].tolist()) if step else rng.getrandbits(8 * LANES)
            columns |= word << 8 * LANES * j
        dut.a.value, dut.b.value = rows, columns
        await ReadOnly()
        assert int(dut.sum_valid.value) == int((now, 0) in due), f"cycle {now}"
        sums = int(dut.sums.value)
        for row in range(ROWS):
            if (now, row) in due:
                value = sums >> width * row & (1 << width) - 1
                value -= (value >> (width - 1)) << width
                assert value == due[now, row], f"cycle {now}, row {row}"
                seen += 1
        await FallingEdge(dut.clk)
    assert seen == tiles * ROWS * COLS


@cocotb.test()
async def without_gaps(dut: Any) -> None:
    await _run(dut, seed=1, tiles=120, gap=0.0, extremes=False)


@cocotb.test()
async def with_gaps(dut: Any) -> None:
    await _run(dut, seed=2, tiles=120, gap=0.4, extremes=False)


@cocotb.test()
async def extremes(dut: Any) -> None:
    await _run(dut, seed=3, tiles=60, gap=0.1, extremes=True)


@cocotb.test()
async def reset_in_any_state(dut: Any) -> None:
    """One cycle of reset forgets what was in flight and what had been added up."""
    await _run(dut, seed=4, tiles=1, gap=0.0, extremes=False)
    rng = make_rng(5)
    for _ in range(20):
        dut.valid.value, dut.last.value = 1, int(rng.random() < 0.2)
        dut.a.value, dut.b.value = (rng.getrandbits(8 * LANES * count) for count in (ROWS, COLS))
        await FallingEdge(dut.clk)
    dut.valid.value, dut.rst.value = 0, 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    await _tiles(dut, rng, tiles=3, gap=0.0, extremes=False)
