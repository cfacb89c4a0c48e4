"""An array of one row whose columns all work in the same cycle."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data

from gateformer.hw.array_ports import ArrayPorts
from gateformer.hw.interfaces import accumulator_shape, pipelined
from gateformer.hw.primitives.adder import add_signed
from gateformer.hw.processing_element import accumulate_latency, sum_of_products
from gateformer.spec.config import AcceleratorConfig


def broadcasts(config: AcceleratorConfig) -> bool:
    """Whether `RowArray` takes the place of `SystolicArray`: where ways are short, a row of A
    reaches all columns in one cycle, which saves the registers of the hops."""
    return config.rows == 1 and not pipelined(config)


class RowArray(ArrayPorts):
    """`SystolicArray` of one row without hops: `b[j]` holds column j's operands in the cycle of the
    step, as `a[0]` does. The sums wait in a chain of registers for their turn to leave.
    """

    @property
    def latency(self) -> int:
        """Cycles from a last step to the first of its sums."""
        return accumulate_latency(self.config) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        shape = accumulator_shape(config)
        controls: Any = data.StructLayout({"step": 1, "ends": 1})
        stage: Any = Signal(controls)
        m.d.comb += [stage.step.eq(self.valid), stage.ends.eq(self.valid & self.last)]
        for number in range(accumulate_latency(config)):
            later = Signal(controls, name=f"controls_{number}")
            m.d.sync += later.eq(stage)
            stage = later

        # From the last column on, for each takes the one behind it while it is not loaded.
        behind: Any = None
        for j in reversed(range(config.cols)):
            term = sum_of_products(m, config, self.a[0], self.b[j], prefix=f"column_{j}_")
            accumulator = Signal(shape, name=f"accumulator_{j}")
            total = add_signed(m, accumulator, term, shape.width, name=f"total_{j}")
            with m.If(stage.ends):
                m.d.sync += accumulator.eq(0)
            with m.Elif(stage.step):
                m.d.sync += accumulator.eq(total)
            leaving = Signal(shape, name=f"leaving_{j}", reset_less=True)
            if behind is None:
                with m.If(stage.ends):
                    m.d.sync += leaving.eq(total)
            else:
                m.d.sync += leaving.eq(Mux(stage.ends, total, behind))
            behind = leaving
        m.d.comb += self.sums[0].eq(behind)

        due = Signal(config.cols)
        m.d.sync += due.eq(Mux(stage.ends, -1, due >> 1))
        m.d.comb += self.sum_valid.eq(due[0])
        return m
