"""The ports of the two forms of the array."""

from amaranth import Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import accumulator_shape
from gateformer.hw.processing_element import operands_layout
from gateformer.spec.config import AcceleratorConfig


class ArrayPorts(Component):
    """See `SystolicArray`."""

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
