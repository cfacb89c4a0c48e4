"""The epilogue: from sums of the array to masked words of local memory."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.accumulator_buffer import AccumulatorRead
from gateformer.hw.epilogue_parallel import ParallelEpilogue
from gateformer.hw.epilogue_serial import SerialEpilogue
from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class Epilogue(Component):
    """Executes the output half of GEMM and ACTIVATION_TABLE, and LOAD_P beside them.

    config.multipliers chooses between `ParallelEpilogue` and `SerialEpilogue`, which tell how long
    an output takes. One instruction at a time: the next one starts when the last write of this one
    was taken. `busy`: outputs are being computed.
    """

    instructions: Any
    load_p: Any
    read_p: Any
    tiles: Any
    read: Any
    write: Any
    busy: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
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
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        form: Any
        if self.config.multipliers == "serial":
            form = SerialEpilogue(self.config)
        else:
            form = ParallelEpilogue(self.config)
        m.submodules.form = form
        connect(m, flipped(self), form)
        return m
