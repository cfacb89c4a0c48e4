"""The counting semaphore against a Python counter."""

import random

from amaranth.sim import Simulator

from gateformer.hw.credits import Credits


def test_count() -> None:
    limit, seed = 3, 5
    print(f"seed {seed}")
    rng = random.Random(seed)
    dut = Credits(limit, init=2)

    async def bench(ctx):  # type: ignore[no-untyped-def]
        count = 2
        for _ in range(2000):
            assert ctx.get(dut.available) == (count > 0)
            take = count > 0 and rng.random() < 0.5
            give = (count < limit or take) and rng.random() < 0.5
            ctx.set(dut.take, take)
            ctx.set(dut.give, give)
            count += give - take
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
