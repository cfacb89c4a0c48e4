"""The ports of the epilogue, whatever it is made of."""

from collections.abc import Mapping
from typing import Any

from amaranth import Signal
from amaranth.lib.wiring import Component, In, Member, Out

from gateformer.hw.accumulator_buffer import AccumulatorRead
from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class EpiloguePorts(Component):
    """`instructions`, `load_p`: GEMM and ACTIVATION_TABLE, and LOAD_P. `tiles`: the array's sums.
    `read_p`, `read`, `write`: records, operands and outputs in local memory. `busy`: outputs are
    being computed.
    """

    instructions: Any
    load_p: Any
    read_p: Any
    tiles: Any
    read: Any
    write: Any
    busy: Signal

    def __init__(self, config: AcceleratorConfig, more: Mapping[str, Member] | None = None) -> None:
        """more: further ports."""
        self.config = config
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.EPILOGUE)),
                "load_p": Out(InstructionPort(Engine.LOAD_P)),
                "read_p": Out(LocalRead(config)),
                "tiles": In(AccumulatorRead(config)),
                "read": Out(LocalRead(config)),
                "write": Out(LocalWrite(config)),
                "busy": Out(1),
                **(more or {}),
            }
        )
