"""The reciprocal square root against spec.arithmetic.rsqrt."""

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge
from cocotb.utils import get_sim_time
from drivers import make_rng, start

from gateformer.spec.arithmetic import rsqrt

WIDTH = int(os.environ["WIDTH"])
LATENCY = int(os.environ["LATENCY"])
CLOCK_STEPS = 2


async def _root(dut: Any, rng: random.Random, value: int) -> int:
    """One root; checks the result and returns its cycles."""
    dut.start.value = 1
    dut.value.value = value
    await FallingEdge(dut.clk)
    dut.start.value = 0
    dut.value.value = rng.getrandbits(WIDTH)
    begin = get_sim_time("step")
    await FallingEdge(dut.busy)
    await FallingEdge(dut.clk)
    cycles = 1 + (get_sim_time("step") - begin) // CLOCK_STEPS
    result = int(dut.root.value), int(dut.exponent.value)
    assert result == rsqrt(max(value, 1)), (value, result)
    return cycles


@cocotb.test()
async def every_mantissa(dut: Any) -> None:
    """All 16-bit values, at the top of the width so that normalizing is short."""
    rng = make_rng(1)
    await start(dut)
    for value in range(1 << 14, 1 << 16):
        await _root(dut, rng, value << (WIDTH - 16))


@cocotb.test()
async def small_values(dut: Any) -> None:
    rng = make_rng(2)
    await start(dut)
    slowest = max([await _root(dut, rng, value) for value in range(1 << 12)])
    assert slowest == LATENCY
    for exponent in range(12, 16):
        for value in range(1 << exponent, 2 << exponent, 7):
            await _root(dut, rng, value)


@cocotb.test()
async def random_values(dut: Any) -> None:
    rng = make_rng(3)
    await start(dut)
    for value in (0, 1, 2, 3, 4, (1 << WIDTH) - 1, 1 << (WIDTH - 1), 1 << (WIDTH - 2)):
        await _root(dut, rng, value)
    for _ in range(3000):
        await _root(dut, rng, rng.getrandbits(rng.randrange(1, WIDTH + 1)))
