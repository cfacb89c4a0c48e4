"""Synthesis of a small circuit whose cells are known, and the errors of the tools."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateformer.boards import yowasp
from gateformer.boards.synth import DEVICES, synthesize
from gateformer.spec.errors import ToolError

COUNTER = """
module top (input clk, input rst, input [7:0] step, output reg [7:0] count);
  always @(posedge clk) count <= rst ? 8'd0 : count + step;
endmodule
"""


@pytest.fixture(params=DEVICES.values(), ids=lambda device: device.name)
def device(request: pytest.FixtureRequest) -> Iterator:
    yield request.param


def test_counts_and_speed(device, tmp_path: Path) -> None:
    steps: list[str] = []
    report = synthesize(
        COUNTER,
        device,
        top="top",
        build_dir=tmp_path,
        macs=16,
        pnr=True,
        seeds=2,
        progress=steps.append,
    )
    assert report.ff == 8
    assert report.lut_eq == report.lut4 + 2 * report.ccu2c > 0
    assert (report.dsp, report.bram, report.spram) == (0, 0, 0)
    assert len(report.fmax_mhz) == 2
    assert all(50 < mhz < 1000 for mhz in report.fmax_mhz)
    assert len(steps) == 3
    assert report.as_dict()["macs"] == 16


def test_wrapper_adds_registers_and_no_lut(tmp_path: Path) -> None:
    report = synthesize(COUNTER, DEVICES["ecp5-85k"], top="top", build_dir=tmp_path, pnr=True)
    assert report.utilization["TRELLIS_FF"] == report.ff + 9 + 8
    assert report.trellis_comb is not None
    # nextpnr adds two places to enter a carry chain, two to leave it, and one for each constant.
    assert report.trellis_comb <= report.lut_eq + 6


def test_no_placement_no_speed(device, tmp_path: Path) -> None:
    report = synthesize(COUNTER, device, top="top", build_dir=tmp_path)
    assert report.fmax_mhz == []
    assert report.trellis_comb is None
    assert report.macs is None


def test_failure_names_reason_and_log(device, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"yosys failed: .*; its log is .*yosys\.log"):
        synthesize("module top (", device, top="top", build_dir=tmp_path)


def test_too_large_for_the_device(tmp_path: Path) -> None:
    memory = "\n".join(
        f"  SB_SPRAM256KA m{i} (.CLOCK(clk), .ADDRESS({{13'b0, a}}), .CHIPSELECT(1'b1), "
        f".DATAOUT(q[{16 * i} +: 16]));"
        for i in range(5)
    )
    verilog = f"module top (input clk, input a, output [79:0] q);\n{memory}\nendmodule\n"
    with pytest.raises(ToolError, match=r"nextpnr-ice40 failed: .*nextpnr-1\.log"):
        synthesize(verilog, DEVICES["ice40-up5k"], top="top", build_dir=tmp_path, pnr=True)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="cannot write to"):
        synthesize(COUNTER, DEVICES["ecp5-85k"], top="top", build_dir=tmp_path / "file" / "build")


@pytest.mark.parametrize(
    ("number", "bad"), [("0.64.0.0.post1", True), ("0.70.0.0.post1259", False)]
)
def test_known_bad_yosys(number: str, bad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yowasp, "version", lambda name: number)
    if bad:
        with pytest.raises(ToolError, match=r"Yosys 0\.64 is known to be broken"):
            yowasp.check_yosys()
    else:
        yowasp.check_yosys()


def test_missing_tool(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="pip install yowasp-nextpnr-none"):
        yowasp.run_tool("nextpnr-none", [], folder=tmp_path, log="log")
