"""The joining adder: random operands and the ends of their ranges."""

import os
from typing import Any

import cocotb
from cocotb.triggers import Timer
from drivers import make_rng

WIDTH = int(os.environ["WIDTH"])
JOIN = os.environ["JOIN"]


@cocotb.test()
async def sums(dut: Any) -> None:
    rng = make_rng(1)
    mask = (1 << WIDTH) - 1
    edges = (0, 1, mask, mask - 1, 1 << (WIDTH - 1), mask >> 1)
    for step in range(3000):
        if step < len(edges) ** 3:
            a, b, c = (edges[step // len(edges) ** i % len(edges)] for i in range(3))
        else:
            a, b, c = (rng.getrandbits(WIDTH) for _ in range(3))
        carry = rng.randrange(2)
        dut.a.value, dut.b.value, dut.c.value, dut.carry.value = a, b, c, carry
        await Timer(1, "step")
        joined = b | c if JOIN == "or" else b ^ c
        assert int(dut.p.value) == (a + joined + carry) & mask, (a, b, c, carry)
