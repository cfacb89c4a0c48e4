"""Runs of many lengths with events of many rates."""

import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge
from drivers import make_rng, start, wait_until

from gateformer.hw.counters import PERIOD
from gateformer.spec.registers import Counter

CYCLES = len(Counter)
COUNTERS = os.environ["COUNTERS"] == "1"
"""Whether there are more than that of all cycles; the others are 0 then."""


@cocotb.test()
async def totals(dut: Any) -> None:
    """Every total is exact, whatever came before; short runs, long runs, constant events."""
    rng = make_rng(2)
    await start(dut)
    dut.run.value = 0
    dut.clear.value = 0
    around = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65]
    lengths = [*around, *(rng.randrange(1, 3000) for _ in range(6)), 5000]
    for length in lengths:
        # Events between runs do not count.
        for _ in range(rng.randrange(40)):
            dut.events.value = rng.getrandbits(CYCLES)
            await FallingEdge(dut.clk)
        dut.clear.value = 1
        await FallingEdge(dut.clk)
        dut.clear.value = 0
        rates = [rng.choice((0.0, 1.0, 0.5, 0.03, 0.97)) for _ in range(CYCLES)]
        expected = [0] * CYCLES + [length]
        dut.run.value = 1
        for cycle in range(length):
            events = sum((rng.random() < rate) << i for i, rate in enumerate(rates))
            for i in range(CYCLES):
                expected[i] += COUNTERS and events >> i & 1
            dut.events.value = events
            dut.run.value = 1
            await FallingEdge(dut.clk)
            assert int(dut.busy.value) == COUNTERS, cycle
        dut.run.value = 0
        dut.events.value = rng.getrandbits(CYCLES)
        if rng.random() < 0.2:
            # Started again before the totals were done.
            await wait_until(dut, lambda: rng.random() < 0.01)
            continue
        await wait_until(dut, lambda: not int(dut.busy.value), PERIOD * (PERIOD + 4))
        for i in range(CYCLES + 1):
            dut.select.value = i
            await FallingEdge(dut.clk)
            await FallingEdge(dut.clk)
            assert int(dut.value.value) == expected[i], (length, i)
