"""Every pair of a Multiplier's operands when they have 16 bits in all, else random ones."""

import os
from typing import Any

import cocotb
from amaranth import Shape
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.hw.primitives.multiplier import product_shape


def _shape(text: str) -> Shape:
    return Shape(int(text[1:]), signed=text[0] == "s")


LATENCY = int(os.environ["LATENCY"])
A, B = _shape(os.environ["A"]), _shape(os.environ["B"])


def _value(bits: int, shape: Shape) -> int:
    return bits - (1 << shape.width) if shape.signed and bits >> (shape.width - 1) else bits


@cocotb.test()
async def products(dut: Any) -> None:
    rng = make_rng(1)
    await start(dut)
    width = A.width + B.width
    if width <= 16:
        pairs = [(n >> B.width, n & (1 << B.width) - 1) for n in range(1 << width)]
    else:
        edges = [
            (a, b)
            for a in (0, 1, (1 << A.width) - 1, 1 << A.width - 1, (1 << A.width - 1) - 1)
            for b in (0, 1, (1 << B.width) - 1, 1 << B.width - 1, (1 << B.width - 1) - 1)
        ]
        pairs = edges + [(rng.getrandbits(A.width), rng.getrandbits(B.width)) for _ in range(2000)]
    shape = product_shape(A, B)
    for cycle in range(len(pairs) + LATENCY):
        if cycle < len(pairs):
            dut.a.value, dut.b.value = pairs[cycle]
        await ReadOnly()
        if cycle >= LATENCY:
            a, b = pairs[cycle - LATENCY]
            assert _value(int(dut.p.value), shape) == _value(a, A) * _value(b, B)
        await FallingEdge(dut.clk)
