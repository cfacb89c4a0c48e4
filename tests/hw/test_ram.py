"""WordRam: the inferred form, and each family's blocks with behavioural models of their cells."""

from pathlib import Path

import pytest

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.ecp5_blocks import chunk_depths
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.verilog import to_verilog
from gateformer.sim.bench import run_bench

BENCH = str(Path(__file__).with_name("bench_ram.py"))

# Port A as it is used to write and port B to read, after the vendor's description.
DP16KD = (
    """
module DP16KD #(
  parameter integer DATA_WIDTH_A = 18, parameter integer DATA_WIDTH_B = 18,
  parameter REGMODE_A = "NOREG", parameter REGMODE_B = "NOREG", parameter RESETMODE = "SYNC",
  parameter ASYNC_RESET_RELEASE = "SYNC", parameter GSR = "ENABLED",
  parameter CSDECODE_A = "0b000", parameter CSDECODE_B = "0b000",
  parameter WRITEMODE_A = "NORMAL", parameter WRITEMODE_B = "NORMAL",
  parameter CLKAMUX = "CLKA", parameter CLKBMUX = "CLKB"
) (
  input CLKA, CLKB, WEA, WEB, CEA, CEB, OCEA, OCEB, RSTA, RSTB,
"""
    + "".join(f"  input CS{p}{i},\n" for p in "AB" for i in range(3))
    + "".join(f"  input AD{p}{i},\n" for p in "AB" for i in range(14))
    + "".join(f"  input DI{p}{i},\n" for p in "AB" for i in range(18))
    + ",\n".join(f"  output DO{p}{i}" for p in "AB" for i in range(18))
    + ");\n"
    + "".join(
        f"  wire [{n - 1}:0] {v}{p} = {{{', '.join(f'{v}{p}{i}' for i in reversed(range(n)))}}};\n"
        for v, n in (("AD", 14), ("DI", 18))
        for p in "AB"
    )
    + """
  localparam integer SHIFT = DATA_WIDTH_A == 18 ? 4 : DATA_WIDTH_A == 9 ? 3 :
    DATA_WIDTH_A == 4 ? 2 : DATA_WIDTH_A == 2 ? 1 : 0;
  reg [DATA_WIDTH_A-1:0] cells [(16384 >> SHIFT)-1:0];
  reg [DATA_WIDTH_A-1:0] latch, register;
  wire [17:0] q = register;
  wire [17:0] lanes = DATA_WIDTH_A != 18 ? 18'h3ffff : {{9{ADA[1]}}, {9{ADA[0]}}};
  wire [DATA_WIDTH_A-1:0] enabled = lanes[DATA_WIDTH_A-1:0];
  always @(posedge CLKA) if (CEA & WEA)
    if (DATA_WIDTH_A == 18) begin
      if (ADA[0]) cells[ADA >> SHIFT][8:0] <= DIA[8:0];
      if (ADA[1]) cells[ADA >> SHIFT][DATA_WIDTH_A-1:9*(DATA_WIDTH_A/18)] <= DIA[17:9];
    end else cells[ADA >> SHIFT] <= DIA[DATA_WIDTH_A-1:0];
  always @(posedge CLKB) begin
    // What is written in the same cycle is not to be relied on.
    if (CEB) latch <= cells[ADB >> SHIFT] ^
      (CEA & WEA & (ADA >> SHIFT == ADB >> SHIFT) ? enabled : {DATA_WIDTH_A{1'b0}});
    if (OCEB) register <= latch;
  end
"""
    + "".join(f"  assign DOB{i} = q[{i}];\n" for i in range(18))
    + "endmodule\n"
)
PDPW16KD = (
    """
module PDPW16KD #(
  parameter integer DATA_WIDTH_W = 36, parameter integer DATA_WIDTH_R = 36,
  parameter REGMODE = "NOREG", parameter RESETMODE = "SYNC",
  parameter ASYNC_RESET_RELEASE = "SYNC", parameter GSR = "ENABLED",
  parameter CSDECODE_W = "0b000", parameter CSDECODE_R = "0b000",
  parameter CLKWMUX = "CLKW", parameter CLKRMUX = "CLKR"
) (
  input CLKW, CLKR, CEW, CER, OCER, RST,
"""
    + "".join(f"  input CS{p}{i},\n" for p in "WR" for i in range(3))
    + "".join(f"  input BE{i},\n" for i in range(4))
    + "".join(f"  input ADW{i},\n" for i in range(9))
    + "".join(f"  input ADR{i},\n" for i in range(14))
    + "".join(f"  input DI{i},\n" for i in range(36))
    + ",\n".join(f"  output DO{i}" for i in range(36))
    + ");\n"
    + "".join(
        f"  wire [{n - 1}:0] {v} = {{{', '.join(f'{v}{i}' for i in reversed(range(n)))}}};\n"
        for v, n in (("BE", 4), ("ADW", 9), ("ADR", 14), ("DI", 36))
    )
    + """
  reg [35:0] cells [511:0];
  reg [35:0] latch, register;
  wire [35:0] enabled = {{9{BE[3]}}, {9{BE[2]}}, {9{BE[1]}}, {9{BE[0]}}};
  always @(posedge CLKW) if (CEW) cells[ADW] <= (cells[ADW] & ~enabled) | (DI & enabled);
  always @(posedge CLKR) begin
    // What is written in the same cycle is not to be relied on.
    if (CER) latch <= cells[ADR[13:5]] ^ (CEW & (ADW == ADR[13:5]) ? enabled : 36'd0);
    if (OCER) register <= latch;
  end
"""
    + "".join(f"  assign DO{i} = register[{i}];\n" for i in range(36))
    + "endmodule\n"
)
SPRAM = """
module SB_SPRAM256KA (
  input [13:0] ADDRESS, input [15:0] DATAIN, input [3:0] MASKWREN,
  input WREN, CHIPSELECT, CLOCK, STANDBY, SLEEP, POWEROFF, output reg [15:0] DATAOUT
);
  reg [15:0] cells [16383:0];
  integer i;
  always @(posedge CLOCK) if (CHIPSELECT && POWEROFF && !SLEEP && !STANDBY)
    if (WREN) begin
      for (i = 0; i < 4; i = i + 1)
        if (MASKWREN[i]) cells[ADDRESS][4*i +: 4] <= DATAIN[4*i +: 4];
    end else DATAOUT <= cells[ADDRESS];
endmodule
"""


@pytest.mark.parametrize(
    ("family", "ports", "wide", "depth", "width_bytes", "model"),
    [
        # Two bytes build in a quarter of the time, and only PDPW16KD holds more.
        ("generic", 2, False, 300, 2, ""),
        ("generic", 2, True, 300, 2, ""),
        ("generic", 1, False, 300, 2, ""),
        ("ecp5", 2, False, 1024, 2, DP16KD),
        ("ecp5", 2, True, 31 * 1024, 2, DP16KD),
        ("ecp5", 2, False, 1500, 6, DP16KD + PDPW16KD),
        ("ecp5", 2, False, 100, 2, ""),
        ("ice40", 1, False, 20000, 2, SPRAM),
    ],
)
def test_random_access(
    family: str,
    ports: int,
    wide: bool,
    depth: int,
    width_bytes: int,
    model: str,
    tmp_path: Path,
) -> None:
    ram = WordRam(
        depth=depth,
        width_bytes=width_bytes,
        ports=ports,
        wide=wide,
        luts=model == "",
        family=family,
    )
    cells = tmp_path / "cells.v"
    cells.write_text(model)
    run_bench(
        ram,
        BENCH,
        tmp_path / "build",
        environment={
            "DEPTH": str(depth),
            "WIDTH_BYTES": str(width_bytes),
            "PORTS": str(ports),
            "LATENCY": str(ram.latency),
        },
        sources=(cells,) if model else (),
    )


@pytest.mark.parametrize(
    ("family", "ports", "depth", "luts", "cell", "count"),
    [
        ("ecp5", 2, 28 * 1024, False, "DP16KD", 112),
        ("ecp5", 2, 1536, False, "DP16KD", 4),
        ("ecp5", 2, 1536, False, "PDPW16KD", 2),
        ("ecp5", 2, 100, False, "PDPW16KD", 2),
        ("ecp5", 2, 129, True, "PDPW16KD", 2),
        ("ice40", 1, 16384, False, "SB_SPRAM256KA", 4),
    ],
)
def test_blocks(
    family: str, ports: int, depth: int, luts: bool, cell: str, count: int, tmp_path: Path
) -> None:
    """The synthesizer knows every cell, port and parameter, and the count is as planned."""
    ram = WordRam(depth=depth, width_bytes=8, ports=ports, luts=luts, family=family)
    (tmp_path / "ram.v").write_text(to_verilog(ram, name="ram"))
    commands = (
        f"read_verilog ram.v; synth_{family} -run begin:coarse -top ram; "
        f"hierarchy -check; select -assert-count {count} t:{cell}"
    )
    run_tool("yosys", ["-p", commands], folder=tmp_path, log="yosys.log")


def test_a_ram_of_luts(tmp_path: Path) -> None:
    """Of 100 words it takes seven cells of 16 for each four bits, and no block."""
    ram = WordRam(depth=100, width_bytes=8, luts=True, family="ecp5")
    (tmp_path / "ram.v").write_text(to_verilog(ram, name="ram"))
    commands = (
        "read_verilog ram.v; synth_ecp5 -run begin:map_gates -top ram; "
        f"select -assert-count {7 * 16} t:TRELLIS_DPR16X4; select -assert-none t:*DP*16KD"
    )
    run_tool("yosys", ["-p", commands], folder=tmp_path, log="yosys.log")


def test_chunks_cover_the_depth_with_few_blocks() -> None:
    assert chunk_depths(28 * 1024) == [16384, 8192, 4096]
    assert chunk_depths(39000) == [16384, 16384, 4096, 2048, 512]
    assert chunk_depths(1500) == [1024, 512]
    assert chunk_depths(1) == [512]


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_refuses_three_ports() -> None:
    with pytest.raises(ValueError, match="1 or 2 ports"):
        WordRam(depth=8, width_bytes=8, ports=3)
