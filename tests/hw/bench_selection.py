"""Every word of a choice, and none, in random order."""

import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

COUNT, BITS, BLANK = (int(os.environ[name]) for name in ("COUNT", "BITS", "BLANK"))


@cocotb.test()
async def choices(dut: Any) -> None:
    rng = make_rng(8)
    await start(dut)
    expected: int | None = None
    for _ in range(500):
        words = [rng.getrandbits(BITS) for _ in range(COUNT)]
        number = rng.randrange(COUNT + 1)
        dut.chosen.value = 1 << number & (1 << COUNT) - 1
        for i, word in enumerate(words):
            getattr(dut, f"word_{i}").value = word
        await ReadOnly()
        if expected is not None:
            assert int(dut.result.value) == expected
        expected = words[number] if number < COUNT else 0 if BLANK else None
        await FallingEdge(dut.clk)
