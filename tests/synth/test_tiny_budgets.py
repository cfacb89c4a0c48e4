"""Sizes of `tiny` and its units on an iCE40 against the FPGA and budgets: measured, plus 5 %.

LUT4 and flip-flops are counted alone; nextpnr puts a LUT and the flip-flop behind it in one cell.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.lib.wiring import Component

from gateformer.boards.synth import DEVICES, synthesize
from gateformer.boards.yowasp import run_tool
from gateformer.hw.accelerator import Accelerator
from gateformer.hw.array_engine import ArrayEngine
from gateformer.hw.dma import Dma
from gateformer.hw.dram_turns import DramTurns
from gateformer.hw.epilogue import Epilogue
from gateformer.hw.instruction_scheduler import InstructionScheduler
from gateformer.hw.vector_processor import VectorProcessor
from gateformer.hw.verilog import to_verilog
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import TINY


@pytest.mark.parametrize(
    ("make", "budget"),
    [
        (ArrayEngine, {"lut4": 863, "ff": 718, "dsp": 8, "bram": 14}),
        (Dma, {"lut4": 509, "ff": 240, "bram": 1}),
        (DramTurns, {"lut4": 68, "ff": 36}),
        (Epilogue, {"lut4": 1014, "ff": 323, "bram": 3}),
        (InstructionScheduler, {"lut4": 428, "ff": 971, "bram": 2}),
        (VectorProcessor, {"lut4": 336, "ff": 65, "bram": 9}),
    ],
)
def test_unit_fits_its_budget(
    make: Callable[[AcceleratorConfig], Component], budget: dict[str, int], tmp_path: Path
) -> None:
    verilog = to_verilog(make(TINY), name="unit")
    report = synthesize(verilog, DEVICES["ice40-up5k"], top="unit", build_dir=tmp_path).as_dict()
    print(f"{make.__name__}: {report}")
    limits = {"dsp": 0, "bram": 0, **budget}
    over = {k: f"{report[k]} of {most}" for k, most in limits.items() if report[k] > most}
    assert not over, f"{make.__name__} outgrew its budget: {over}"


def test_whole_core_fits_the_fpga(tmp_path: Path) -> None:
    """As nextpnr counts after packing."""
    device = DEVICES["ice40-up5k"]
    synthesize(to_verilog(Accelerator(TINY), name="core"), device, top="core", build_dir=tmp_path)
    arguments = [*device.nextpnr_arguments, "--json", "core.json", "--pack-only"]
    run_tool(device.nextpnr, arguments, folder=tmp_path, log="pack.log")
    cells = {
        name: (int(used), int(there))
        for name, used, there in re.findall(
            r"(\w+): +(\d+)/ *(\d+)", (tmp_path / "pack.log").read_text()
        )
    }
    print(cells)
    for name, there in (
        ("ICESTORM_LC", 5280),
        ("ICESTORM_RAM", 30),
        ("ICESTORM_DSP", 8),
        ("ICESTORM_SPRAM", 4),
    ):
        assert cells[name][0] <= there == cells[name][1], cells
