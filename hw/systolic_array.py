"""The grid of processing elements: operands hop through it, sums stay, results leave by row."""

from functools import reduce
from operator import or_
from typing import Any

from amaranth import Module, Signal, Value

from gateformer.hw.array_ports import ArrayPorts
from gateformer.hw.processing_element import (
    CONTROLS,
    RESET_CONTROLS,
    ProcessingElement,
    accumulate_latency,
)

_JOINED = 4
"""Results that one OR joins: the inputs of a LUT."""


class SystolicArray(ArrayPorts):
    """Sums of products of `rows` operand rows of A with `cols` of B, output-stationary.

    `valid` is 1 in the cycle of a step, with `last` for the last step of a tile. `a[i]` holds row
    i's operands i cycles after that cycle, `b[j]` column j's j cycles after it. Two last steps are
    at least `cols` cycles apart.

    `sums[i]` is what leaves row i. `sum_valid` is 1 for `cols` cycles, the first of them `latency`
    cycles after a last step, when `sums[0]` holds columns 0 to cols - 1, one a cycle; row i follows
    i cycles later. `sum_valid` and `sums` are registers.
    """

    @property
    def latency(self) -> int:
        """Cycles from a last step to the first of its sums."""
        return accumulate_latency(self.config) + 1 + _levels(self.config.cols)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self.config.rows, self.config.cols
        grid = [[ProcessingElement(self.config) for _ in range(cols)] for _ in range(rows)]

        last = self.valid & self.last
        controls: Any = Signal(CONTROLS)
        m.d.comb += [
            controls.accumulate.eq(self.valid),
            controls.clear.eq(last),
            controls.discard.eq(~last),
        ]
        for stage in range(accumulate_latency(self.config)):
            controls = _delayed(m, controls, f"controls_{stage}")
        ends = ~controls.discard

        for i, row in enumerate(grid):
            if i:
                controls = _delayed(m, controls, f"controls_row_{i}")
            for j, element in enumerate(row):
                m.submodules[f"element_{i}_{j}"] = element
                m.d.comb += [
                    element.a.eq(row[j - 1].a_next if j else self.a[i]),
                    element.b.eq(grid[i - 1][j].b_next if i else self.b[j]),
                    element.controls.eq(row[j - 1].controls_next if j else controls),
                ]
            # The controls reach column j j cycles after column 0, so in each cycle at most one
            # column's result is not 0.
            results = [element.result for element in row]
            for level in range(_levels(cols)):
                joined = []
                for first in range(0, len(results), _JOINED):
                    node = Signal.like(results[0], name=f"sum_{i}_{level}_{first}", reset_less=True)
                    m.d.sync += node.eq(reduce(or_, results[first : first + _JOINED]))
                    joined.append(node)
                results = joined
            m.d.comb += self.sums[i].eq(results[0])

        for stage in range(_levels(cols)):
            ends = _register(m, ends, f"ends_{stage}")
        leaving = [ends]
        for column in range(1, cols):
            leaving.append(_register(m, leaving[-1], f"leaving_{column}"))
        m.d.sync += self.sum_valid.eq(reduce(or_, leaving))
        return m


def _levels(cols: int) -> int:
    """Stages of ORs that join the results of a row."""
    levels, left = 0, cols
    while left > 1:
        levels, left = levels + 1, -(-left // _JOINED)
    return levels


def _delayed(m: Module, controls: Any, name: str) -> Any:
    register = Signal(CONTROLS, name=name, init=RESET_CONTROLS)
    m.d.sync += register.eq(controls)
    return register


def _register(m: Module, value: Value, name: str) -> Signal:
    register = Signal(name=name)
    m.d.sync += register.eq(value)
    return register
