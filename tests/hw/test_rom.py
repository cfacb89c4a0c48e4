"""Rom: the inferred form's words and latency, and that ECP5's block holds what Yosys would."""

import json
from pathlib import Path
from typing import Any

import pytest
from amaranth.sim import Simulator

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.rom import Rom
from gateformer.hw.verilog import to_verilog

CONTENTS = [(i * 40503 + 77) % (1 << 18) for i in range(300)]


def test_words_come_in_order() -> None:
    rom = Rom(CONTENTS)
    simulator = Simulator(rom)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        for i in range(len(CONTENTS) + Rom.LATENCY):
            ctx.set(rom.address, min(i, len(CONTENTS) - 1))
            if i >= Rom.LATENCY:
                assert ctx.get(rom.data) == CONTENTS[i - Rom.LATENCY]
            await ctx.tick()

    simulator.add_testbench(bench)
    simulator.run()


def _block(folder: Path, family: Any) -> dict[str, Any]:
    """The one block RAM that Yosys makes of the ROM."""
    folder.mkdir()
    (folder / "rom.v").write_text(to_verilog(Rom(CONTENTS, family=family), name="rom"))
    script = "read_verilog rom.v; synth_ecp5 -top rom; write_json rom.json"
    run_tool("yosys", ["-p", script], folder=folder, log="yosys.log")
    cells = json.loads((folder / "rom.json").read_text())["modules"]["rom"]["cells"].values()
    (block,) = (cell for cell in cells if cell["type"] == "DP16KD")
    return block


def test_block_of_ecp5(tmp_path: Path) -> None:
    """What Yosys makes of the inferred form says where words lie in a block."""
    ours = _block(tmp_path / "ecp5", "ecp5")["parameters"]
    inferred = _block(tmp_path / "inferred", "generic")["parameters"]
    for i in range(64):
        assert ours[f"INITVAL_{i:02X}"] == inferred[f"INITVAL_{i:02X}"], i
    assert ours["REGMODE_A"] == "OUTREG"
    assert int(ours["DATA_WIDTH_A"], 2) == int(inferred["DATA_WIDTH_A"], 2) == 18


@pytest.mark.parametrize("contents", [[0, 1 << 18], [-1, 5], [1] * 1025])
def test_refuses_what_does_not_fit(contents: list[int]) -> None:
    with pytest.raises(ValueError, match="at most 1024 unsigned numbers of 18 bits"):
        Rom(contents)
