"""The grid of processing elements: operands hop through it, sums stay, results leave by row."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import accumulator_shape
from gateformer.hw.processing_element import (
    ProcessingElement,
    accumulate_latency,
    operands_layout,
)
from gateformer.spec.config import AcceleratorConfig


class SystolicArray(Component):
    """Sums of products of `rows` operand rows of A with `cols` of B, output-stationary.

    `valid` is 1 in the cycle of a step, with `last` for the last step of a tile. `a[i]` holds row
    i's operands i cycles after that cycle, `b[j]` column j's j cycles after it. Two last steps are
    at least `cols` cycles apart.

    `sums[i]` is what leaves row i. `sum_valid` is 1 for `cols` cycles, the first of them `latency`
    cycles after a last step, when `sums[0]` holds columns cols - 1 down to 0; row i follows i
    cycles later.
    """

    valid: Signal
    last: Signal
    a: data.View
    b: data.View
    sum_valid: Signal
    sums: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        operands = operands_layout(config.lanes)
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "a": In(data.ArrayLayout(operands, config.rows)),
                "b": In(data.ArrayLayout(operands, config.cols)),
                "sum_valid": Out(1),
                "sums": Out(data.ArrayLayout(accumulator_shape(config), config.rows)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a last step to the first of its sums."""
        return accumulate_latency(self.config.lanes) + self.config.cols

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self.config.rows, self.config.cols
        grid = [[ProcessingElement(self.config) for _ in range(cols)] for _ in range(rows)]

        accumulate, last = self.valid, self.valid & self.last
        for stage in range(accumulate_latency(self.config.lanes)):
            accumulate = _delayed(m, accumulate, f"accumulate_{stage}")
            last = _delayed(m, last, f"last_{stage}")

        for i, row in enumerate(grid):
            if i:
                accumulate = _delayed(m, accumulate, f"accumulate_row_{i}")
                last = _delayed(m, last, f"last_row_{i}")
            # The last column leaves first. What is d columns to its left moves d times, and then
            # the next tile's result takes its place: column j shifts in the first j cycles after
            # the last column's result has come.
            shift = Signal(cols, name=f"shift_{i}")
            m.d.sync += shift.eq((shift << 1) | Mux(row[-1].last, (1 << cols) - 2, 0))
            for j, element in enumerate(row):
                m.submodules[f"element_{i}_{j}"] = element
                m.d.comb += [
                    element.a.eq(row[j - 1].a_next if j else self.a[i]),
                    element.b.eq(grid[i - 1][j].b_next if i else self.b[j]),
                    element.accumulate.eq(row[j - 1].accumulate_next if j else accumulate),
                    element.last.eq(row[j - 1].last_next if j else last),
                    element.shift.eq(shift[j]),
                    element.result_before.eq(row[j - 1].result if j else 0),
                ]
            m.d.comb += self.sums[i].eq(row[-1].result)

        started = Signal(cols)
        m.d.sync += started.eq(Cat(grid[0][-1].last, started))
        m.d.comb += self.sum_valid.eq(started.any())
        return m


def _delayed(m: Module, value: Value, name: str) -> Signal:
    register = Signal(name=name)
    m.d.sync += register.eq(value)
    return register
