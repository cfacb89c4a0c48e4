"""A counter of what is left, in steps."""

from amaranth import Module, Mux, Signal, Value, signed

from gateformer.hw.primitives.adder import mux_add
from gateformer.spec.config import AcceleratorConfig


class CountDown:
    """Counts `total` down by `step` where `advance` is 1; takes `total` anew where `load` is too.

    last: at most one step is left (a register, and `next_last` its value after an advance).
    """

    def __init__(
        self,
        m: Module,
        config: AcceleratorConfig,
        *,
        total: Value,
        step: int,
        load: Value,
        advance: Value,
        name: str,
    ) -> None:
        # One step and one unit less than what is left: the sign tells the last step.
        shape = signed(max(len(total), step.bit_length()) + 1)
        left = Signal(shape, name=f"{name}_left", reset_less=True)
        less = Signal(shape, name=f"{name}_less")
        m.d.comb += less.eq(Mux(load, -(step + 1), -step))
        following = mux_add(
            m, less, load, total, left, shape, name=f"{name}_next", family=config.family
        )
        with m.If(advance):
            m.d.sync += left.eq(following)
        self.last = left[-1]
        self.next_last = following[-1]
