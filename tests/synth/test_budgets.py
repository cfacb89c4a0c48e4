"""Each unit's size on ECP5 against its budget: measured, plus 5 % for the mapper's moods.

A unit that outgrows its budget fails: make it smaller, or raise the budget on purpose. The goal of
the whole core is 7,680 LUT-eq, 60 for each of its 128 MACs; these budgets add up to more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from amaranth.lib.wiring import Component

from gateformer.boards.synth import DEVICES, synthesize
from gateformer.hw.array_engine import ArrayEngine
from gateformer.hw.counters import Counters
from gateformer.hw.dma import Dma
from gateformer.hw.dram_arbiter import DramArbiter
from gateformer.hw.epilogue import Epilogue
from gateformer.hw.fetch import Fetch
from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.hw.local_fetch import LocalFetch
from gateformer.hw.local_memory import LocalMemory
from gateformer.hw.norm import Norm
from gateformer.hw.registers import Registers
from gateformer.hw.semaphores import Semaphores
from gateformer.hw.sequencer import Sequencer
from gateformer.hw.softmax import Softmax
from gateformer.hw.systolic_array import SystolicArray
from gateformer.hw.vector_engine import VectorEngine
from gateformer.hw.verilog import to_verilog
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K


@dataclass(frozen=True)
class Budget:
    """Most cells that a unit of the config ecp5-85k may take."""

    unit: str
    make: Callable[[AcceleratorConfig], Component]
    lut_eq: int
    ff: int
    dsp: int = 0
    bram: int = 0

    def __str__(self) -> str:
        return self.unit


BUDGETS = (
    Budget("ArrayEngine", ArrayEngine, lut_eq=3427, ff=8418, dsp=128, bram=60),
    Budget("Counters", lambda config: Counters(), lut_eq=144, ff=219),
    Budget("Dma", Dma, lut_eq=531, ff=570, bram=1),
    Budget("DramArbiter", DramArbiter, lut_eq=94, ff=92),
    Budget("Epilogue", Epilogue, lut_eq=1085, ff=2525, dsp=10, bram=6),
    Budget("Fetch", Fetch, lut_eq=160, ff=133, bram=1),
    Budget("InstructionQueues", InstructionQueues, lut_eq=172, ff=2340, bram=4),
    Budget("LocalFetch", LocalFetch, lut_eq=92, ff=91),
    Budget("LocalMemory", LocalMemory, lut_eq=281, ff=951, bram=112),
    Budget("Norm", Norm, lut_eq=717, ff=1171, dsp=10, bram=7),
    Budget("Registers", Registers, lut_eq=122, ff=147),
    Budget("Semaphores", lambda config: Semaphores(), lut_eq=179, ff=197),
    Budget("Sequencer", Sequencer, lut_eq=337, ff=159),
    Budget("Softmax", Softmax, lut_eq=328, ff=430, bram=4),
    Budget("SystolicArray", SystolicArray, lut_eq=2637, ff=6893, dsp=128),
    Budget("VectorEngine", VectorEngine, lut_eq=1531, ff=2150, dsp=10, bram=16),
)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_unit_fits_its_budget(budget: Budget, tmp_path: Path) -> None:
    verilog = to_verilog(budget.make(ECP5_85K), name="unit")
    report = synthesize(verilog, DEVICES["ecp5-85k"], top="unit", build_dir=tmp_path)
    over = {
        name: f"{getattr(report, name)} of {getattr(budget, name)}"
        for name in ("lut_eq", "ff", "dsp", "bram")
        if getattr(report, name) > getattr(budget, name)
    }
    print(f"{budget}: {report.as_dict()}")
    assert not over, f"{budget} outgrew its budget: {over}"
