"""The adders against Python's integers; the ECP5 form of one proven equal to its generic form."""

import random
from pathlib import Path
from typing import Literal

import pytest
from amaranth import Module, Shape, Signal, signed, unsigned
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator, SimulatorContext

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.adder import add_signed, mux_add, wrapped
from gateformer.hw.verilog import to_verilog


@pytest.mark.parametrize(
    ("a_width", "b_width", "width"), [(16, 16, 17), (17, 17, 18), (27, 19, 27), (1, 1, 1)]
)
def test_signed_sum(a_width: int, b_width: int, width: int) -> None:
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


class _Sum(Component):
    """mux_add with ports."""

    def __init__(self, shapes: tuple[Shape, ...], family: Literal["generic", "ecp5"]) -> None:
        self.family = family
        names = ("addend", "when_1", "when_0")
        ports = {name: In(shape) for name, shape in zip(names, shapes[:-1], strict=True)}
        super().__init__({**ports, "select": In(1), "total": Out(shapes[-1])})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = mux_add(
            m,
            self.addend,
            self.select,
            self.when_1,
            self.when_0,
            self.total.shape(),
            name="sum",
            family=self.family,
        )
        m.d.comb += self.total.eq(total)
        return m


@pytest.mark.parametrize(
    "shapes",
    [
        (unsigned(6), unsigned(6), unsigned(6), unsigned(6)),
        (signed(3), unsigned(6), signed(7), signed(7)),
        (unsigned(1), unsigned(5), signed(2), unsigned(9)),
    ],
)
def test_chosen_sum_on_ecp5(shapes: tuple[Shape, ...], tmp_path: Path) -> None:
    """For all operands, by Yosys' own description of the carry cell."""
    for family in ("generic", "ecp5"):
        text = to_verilog(_Sum(shapes, family), name=family)  # type: ignore[arg-type]
        (tmp_path / f"{family}.v").write_text(text)
    script = (
        "read_verilog generic.v ecp5.v +/ecp5/ccu2c_sim.vh; "
        "read_verilog -nooverwrite +/ecp5/common_sim.vh; hierarchy; proc; flatten -wb; "
        "miter -equiv -flatten -make_outputs generic ecp5 miter; "
        "hierarchy -top miter; opt -full; sat -verify -prove trigger 0 miter"
    )
    run_tool("yosys", ["-p", script], folder=tmp_path, log="yosys.log")
    assert "no model found: SUCCESS" in (tmp_path / "yosys.log").read_text()


def test_chosen_sum() -> None:
    m = Module()
    inputs = [Signal(signed(3)), Signal(), Signal(3), Signal(signed(4))]
    addend, select, when_1, when_0 = inputs
    total = mux_add(m, addend, select, when_1, when_0, signed(5), name="total")

    async def bench(context: SimulatorContext) -> None:
        for x in range(-4, 4):
            for y in range(8):
                for z in range(-8, 8):
                    for chosen in (0, 1):
                        for signal, value in zip(inputs, (x, chosen, y, z), strict=True):
                            context.set(signal, value)
                        assert context.get(total) == x + (y if chosen else z)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("depth", [1, 5, 8, 12])
def test_wrapped(depth: int) -> None:
    m = Module()
    position = Signal(range(depth + 1))
    result = wrapped(m, position, depth, name="result")

    async def bench(context: SimulatorContext) -> None:
        for value in range(depth + 1):
            context.set(position, value)
            assert context.get(result) == value % depth

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
