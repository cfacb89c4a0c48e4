"""Each unit's size on ECP5 against its budget: measured, plus a few percent for the mapper's moods.

A unit that outgrows its budget fails: make it smaller, or raise the budget on purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from amaranth.lib.wiring import Component

from gateformer.boards.synth import DEVICES, synthesize
from gateformer.hw.array_engine import ArrayEngine
from gateformer.hw.counters import Counters
from gateformer.hw.fetch import Fetch
from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.hw.local_memory import LocalMemory
from gateformer.hw.semaphores import Semaphores
from gateformer.hw.softmax import Softmax
from gateformer.hw.systolic_array import SystolicArray
from gateformer.hw.verilog import to_verilog
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, SMALL


@dataclass(frozen=True)
class Budget:
    """Most cells that a unit may take."""

    unit: str
    make: Callable[[AcceleratorConfig], Component]
    config: AcceleratorConfig
    lut_eq: int
    ff: int
    dsp: int = 0
    bram: int = 0

    def __str__(self) -> str:
        return f"{self.unit}-{self.config.name}"


BUDGETS = (
    Budget("SystolicArray", SystolicArray, ECP5_85K, 4000, 6000, dsp=128),
    Budget("SystolicArray", SystolicArray, SMALL, 800, 1000, dsp=16),
    Budget("ArrayEngine", ArrayEngine, SMALL, 1500, 2000, dsp=16, bram=40),
    Budget("LocalMemory", LocalMemory, ECP5_85K, 350, 1000, bram=112),
    Budget("InstructionQueues", InstructionQueues, ECP5_85K, 500, 1000, bram=20),
    Budget("Semaphores", lambda config: Semaphores(), ECP5_85K, 300, 150),
    Budget("Fetch", Fetch, ECP5_85K, 200, 300),
    Budget("Counters", lambda config: Counters(), ECP5_85K, 200, 300),
    Budget("Softmax", Softmax, ECP5_85K, 400, 600, bram=4),
)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_unit_fits_its_budget(budget: Budget, tmp_path: Path) -> None:
    verilog = to_verilog(budget.make(budget.config), name="unit")
    report = synthesize(verilog, DEVICES["ecp5-85k"], top="unit", build_dir=tmp_path)
    over = {
        name: f"{getattr(report, name)} of {getattr(budget, name)}"
        for name in ("lut_eq", "ff", "dsp", "bram")
        if getattr(report, name) > getattr(budget, name)
    }
    print(f"{budget}: {report.as_dict()}")
    assert not over, f"{budget} outgrew its budget: {over}"
