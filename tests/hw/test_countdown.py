"""CountDown against Python, whatever the step."""

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator, SimulatorContext

from gateformer.hw.countdown import CountDown
from gateformer.spec.configs import SMALL


@pytest.mark.parametrize("step", [1, 3, 8, 20])
def test_counts(step: int) -> None:
    m = Module()
    total, load, advance = Signal(4), Signal(), Signal()
    config = SMALL.replace(family="generic")
    count = CountDown(m, config, total=total, step=step, load=load, advance=advance, name="c")

    async def bench(context: SimulatorContext) -> None:
        for value in range(16):
            context.set(total, value)
            context.set(load, 1)
            context.set(advance, 1)
            await context.tick()
            left = value
            while left > 0:
                context.set(load, 0)
                context.set(advance, 0)
                await context.tick()
                assert context.get(count.last) == (left <= step)
                context.set(advance, 1)
                left -= step
                if left > 0:
                    assert context.get(count.next_last) == (left <= step)
                    await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
