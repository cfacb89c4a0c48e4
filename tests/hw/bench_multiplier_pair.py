"""Random pairs of products, and the ends of the ranges."""

import itertools
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.hw.primitives.multiplier_pair import MultiplierPair


def _pack(values: tuple[int, ...], bits: int) -> int:
    return sum((value & (1 << bits) - 1) << bits * i for i, value in enumerate(values))


@cocotb.test()
async def products(dut: Any) -> None:
    rng = make_rng(6)
    await start(dut)
    work = list(itertools.product((-128, -1, 0, 127), repeat=4))
    work += [tuple(rng.randint(-128, 127) for _ in range(4)) for _ in range(3000)]
    for cycle in range(len(work) + MultiplierPair.LATENCY):
        if cycle < len(work):
            a0, b0, a1, b1 = work[cycle]
            dut.a.value, dut.b.value = _pack((a0, a1), 8), _pack((b0, b1), 8)
        await ReadOnly()
        if cycle >= MultiplierPair.LATENCY:
            a0, b0, a1, b1 = work[cycle - MultiplierPair.LATENCY]
            assert int(dut.p.value) == _pack((a0 * b0, a1 * b1), 16)
        await FallingEdge(dut.clk)
