"""The epilogue: from sums of the array to masked words of local memory."""

from typing import Any

from amaranth import Module
from amaranth.lib.wiring import connect, flipped

from gateformer.hw.epilogue_parallel import ParallelEpilogue
from gateformer.hw.epilogue_ports import EpiloguePorts
from gateformer.hw.epilogue_serial import SerialEpilogue


class Epilogue(EpiloguePorts):
    """Executes the output half of GEMM and ACTIVATION_TABLE, and LOAD_P beside them.

    config.multipliers chooses between `ParallelEpilogue` and `SerialEpilogue`, which tell how long
    an output takes. One instruction at a time: the next one starts when the last write of this one
    was taken.
    """

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
