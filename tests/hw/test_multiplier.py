"""The multiplier primitive: its generic form against Python, its ECP5 form through Yosys."""

import json
from pathlib import Path
from typing import Literal

import pytest
from amaranth import Shape, signed, unsigned

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.lut_multiplier import LutMultiplier
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.primitives.multiplier_pair import MultiplierPair
from gateformer.hw.verilog import to_verilog
from gateformer.sim.bench import run_bench

CCU2C = """
module CCU2C #(
  parameter [15:0] INIT0 = 0, parameter [15:0] INIT1 = 0,
  parameter INJECT1_0 = "YES", parameter INJECT1_1 = "YES"
) (input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  wire p0 = INIT0[{D0, C0, B0, A0}], p1 = INIT1[{D1, C1, B1, A1}];
  wire carry = p0 ? CIN : INIT0[{2'b00, B0, A0}];
  assign S0 = p0 ^ CIN, S1 = p1 ^ carry, COUT = p1 ? carry : INIT1[{2'b00, B1, A1}];
endmodule
"""
SB_MAC16 = (
    """
// 8x8 mode as the vendor describes it, with its registers; nothing else.
module SB_MAC16 #(
  parameter MODE_8x8 = 0, parameter A_SIGNED = 0, parameter B_SIGNED = 0,
  parameter A_REG = 0, parameter B_REG = 0,
  parameter TOP_8x8_MULT_REG = 0, parameter BOT_8x8_MULT_REG = 0,
  parameter [1:0] TOPOUTPUT_SELECT = 0, parameter [1:0] BOTOUTPUT_SELECT = 0
) (
  input CLK, CE, input [15:0] A, B, C, D, output [31:0] O,
"""
    "input AHOLD, BHOLD, CHOLD, DHOLD, OHOLDTOP, OHOLDBOT, OLOADTOP, OLOADBOT,\n"
    "input IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT, ADDSUBTOP, ADDSUBBOT, CI, ACCUMCI, SIGNEXTIN\n"
    """);
  initial if (!(MODE_8x8 && A_SIGNED && B_SIGNED && A_REG && B_REG && TOP_8x8_MULT_REG &&
    BOT_8x8_MULT_REG && TOPOUTPUT_SELECT == 2 && BOTOUTPUT_SELECT == 2)) $fatal;
  reg signed [7:0] ah, al, bh, bl;
  reg signed [15:0] top, bottom;
  assign O = {top, bottom};
  always @(posedge CLK) if (CE) begin
    {ah, al, bh, bl} <= {A, B};
    top <= ah * bh;
    bottom <= al * bl;
  end
endmodule
"""
)
BENCH = str(Path(__file__).with_name("bench_multiplier.py"))


@pytest.mark.parametrize(
    ("a", "b"), [(signed(8), signed(8)), (signed(18), unsigned(17))], ids=["int8", "mixed"]
)
def test_product(a: Shape, b: Shape, tmp_path: Path) -> None:
    names = {n: f"{'s' if s.signed else 'u'}{s.width}" for n, s in (("A", a), ("B", b))}
    environment = {**names, "LATENCY": str(Multiplier.LATENCY)}
    run_bench(Multiplier(a, b), BENCH, tmp_path / "bench", environment=environment)


@pytest.mark.parametrize(("bits", "family"), [(4, "generic"), (8, "generic"), (8, "ecp5")])
def test_product_of_luts(bits: int, family: Literal["generic", "ecp5"], tmp_path: Path) -> None:
    """All pairs; the carry cell's model is written after the vendor's description."""
    cells = tmp_path / "cells.v"
    cells.write_text(CCU2C if family == "ecp5" else "")
    run_bench(
        LutMultiplier(bits, family),
        BENCH,
        tmp_path / "bench",
        environment={**dict.fromkeys("AB", f"s{bits}"), "LATENCY": str(LutMultiplier.LATENCY)},
        sources=(cells,),
    )


@pytest.mark.parametrize("family", ["generic", "ice40"])
def test_pair(family: Literal["generic", "ice40"], tmp_path: Path) -> None:
    cells = tmp_path / "cells.v"
    cells.write_text(SB_MAC16 if family == "ice40" else "")
    bench = str(Path(__file__).with_name("bench_multiplier_pair.py"))
    run_bench(MultiplierPair(family), bench, tmp_path / "bench", sources=(cells,))


def test_pair_on_ice40_is_one_multiplier(tmp_path: Path) -> None:
    """Which the synthesizer knows by its ports and parameters."""
    (tmp_path / "top.v").write_text(to_verilog(MultiplierPair("ice40"), name="top"))
    commands = (
        "read_verilog top.v; synth_ice40 -run begin:coarse -top top; hierarchy -check; "
        "select -assert-count 1 t:*; select -assert-count 1 t:SB_MAC16"
    )
    run_tool("yosys", ["-p", commands], folder=tmp_path, log="yosys.log")


@pytest.mark.filterwarnings("ignore:.*created but never used")
def test_lut_multiplier_refuses_other_widths() -> None:
    with pytest.raises(ValueError, match="4 or 8 bits"):
        LutMultiplier(6)


@pytest.mark.filterwarnings("ignore:.*created but never used")
@pytest.mark.parametrize("a", [signed(19), unsigned(18)])
def test_too_wide_for_ecp5(a: Shape) -> None:
    with pytest.raises(ValueError, match="too wide"):
        Multiplier(a, signed(8), "ecp5")


def test_ecp5_is_one_multiplier_with_its_registers(tmp_path: Path) -> None:
    multiplier = Multiplier(signed(8), unsigned(16), "ecp5")
    (tmp_path / "top.v").write_text(to_verilog(multiplier, name="top"))
    script = "read_verilog top.v; synth_ecp5 -top top -json top.json"
    run_tool("yosys", ["-p", script], folder=tmp_path, log="yosys.log")
    netlist = json.loads((tmp_path / "top.json").read_text())
    cells = netlist["modules"]["top"]["cells"]
    assert [cell["type"] for cell in cells.values()] == ["MULT18X18D"]
    (cell,) = cells.values()
    for stage in ("INPUTA", "INPUTB", "OUTPUT"):
        assert cell["parameters"][f"REG_{stage}_CLK"] == "CLK0"
