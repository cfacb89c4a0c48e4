"""The carry-saving adder against Python's integers."""

import random

import pytest
from amaranth import Module, Signal, signed
from amaranth.sim import Simulator, SimulatorContext

from gateformer.hw.primitives.adder import add_signed


@pytest.mark.parametrize(
    ("a_width", "b_width", "width"), [(16, 16, 17), (17, 17, 18), (27, 19, 27), (1, 1, 1)]
)
def test_sum(a_width: int, b_width: int, width: int) -> None:
    """Modulo 2**width, at the ends of the ranges and at random."""
    m = Module()
    a, b = Signal(signed(a_width)), Signal(signed(b_width))
    total = add_signed(m, a, b, width, name="total")
    rng = random.Random(5)
    print("seed 5")

    def values(bits: int) -> list[int]:
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        return [low, high, 0, -1, *(rng.randint(low, high) for _ in range(20))]

    async def bench(context: SimulatorContext) -> None:
        for x in values(a_width):
            for y in values(b_width):
                context.set(a, x)
                context.set(b, y)
                wanted = (x + y + (1 << width - 1)) % (1 << width) - (1 << width - 1)
                assert context.get(total) == wanted, (x, y)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
