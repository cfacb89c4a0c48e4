"""The epilogue: from sums of the array to masked words of local memory."""

from typing import Any

from amaranth import Module
from amaranth.lib.wiring import Out, connect, flipped

from gateformer.hw.epilogue_parallel import ParallelEpilogue
from gateformer.hw.epilogue_ports import EpiloguePorts
from gateformer.hw.epilogue_serial import SerialEpilogue
from gateformer.hw.instruction_fields import InstructionFields
from gateformer.hw.interfaces import FieldPort
from gateformer.spec.config import AcceleratorConfig


def asks_for_fields(config: AcceleratorConfig) -> bool:
    """Whether the epilogue has a port `fields` and gets no addresses with its instructions."""
    return config.multipliers == "serial" and not config.prefetch


class Epilogue(EpiloguePorts):
    """Executes the output half of GEMM and ACTIVATION_TABLE, and LOAD_P beside them.

    config.multipliers chooses between `ParallelEpilogue` and `SerialEpilogue`, which tell how long
    an output takes. One instruction at a time: the next one starts when the last write of this one
    was taken.
    """

    fields: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config, {"fields": Out(FieldPort())} if asks_for_fields(config) else None)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.config.multipliers == "dsp":
            m.submodules.form = parallel = ParallelEpilogue(self.config)
            connect(m, flipped(self), parallel)
            return m
        m.submodules.form = serial = SerialEpilogue(self.config)
        m.d.comb += self.busy.eq(serial.busy)
        for name in self.signature.members:
            if name != "busy":
                connect(m, flipped(getattr(self, name)), getattr(serial, name))
        if not asks_for_fields(self.config):
            m.submodules.fields = fields = InstructionFields()
            m.d.comb += fields.instruction.eq(self.instructions.stream.payload)
            connect(m, fields.fields, serial.fields)
        return m
