"""The serial divider against spec.arithmetic.reciprocal."""

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge
from drivers import make_rng, start

from gateformer.hw.serial_divider import SerialDivider
from gateformer.spec.arithmetic import reciprocal

BITS = int(os.environ["TOTAL_BITS"])


async def _divide(dut: Any, rng: random.Random, numerator: int, total: int) -> int:
    """One division; checks the result and returns its cycles."""
    dut.start.value = 1
    dut.total.value = total
    await FallingEdge(dut.clk)
    dut.start.value = rng.randrange(2)
    dut.total.value = rng.getrandbits(BITS)
    cycles = 1
    asked = [0, 0]
    while int(dut.busy.value):
        dut.numerator_bit.value = numerator >> asked.pop(0) & 1
        asked.append(int(dut.position.value))
        await FallingEdge(dut.clk)
        cycles += 1
        if not int(dut.busy.value):
            break
        dut.start.value = rng.randrange(2)
    dut.start.value = 0
    result = int(dut.multiplier.value), int(dut.selector.value)
    assert result == reciprocal(numerator, total), (numerator, total, result)
    await FallingEdge(dut.clk)
    assert result == (int(dut.multiplier.value), int(dut.selector.value))
    return cycles


@cocotb.test()
async def corners(dut: Any) -> None:
    rng = make_rng(1)
    await start(dut)
    largest = (1 << BITS) - 1
    totals = {0, 1, 2, 127, 128, 255, 127 * 4095 & largest, largest - 1, largest}
    numerators = {0, 1, 65535, 65536, 1 << 20, 1 << 24, 1 << 28, 1 << 31, (1 << 32) - 1}
    numerators |= {(t << s) + d for t in totals for s in (16, 20, 24, 28) for d in (-1, 0, 1)}
    for total in sorted(totals):
        for numerator in sorted(n for n in numerators if 0 <= n < 1 << 32):
            cycles = await _divide(dut, rng, numerator, total)
            assert cycles <= SerialDivider.LATENCY


@cocotb.test()
async def random_divisions(dut: Any) -> None:
    rng = make_rng(2)
    await start(dut)
    slowest = 0
    for _ in range(1000):
        total = rng.randrange(127, 1 << rng.randrange(8, BITS + 1))
        numerator = rng.getrandbits(rng.randrange(1, 33))
        slowest = max(slowest, await _divide(dut, rng, numerator, total))
    assert slowest == SerialDivider.LATENCY
