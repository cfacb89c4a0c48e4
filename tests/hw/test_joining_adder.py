"""The joining adder: its generic form against Python, its ECP5 form against the generic one."""

from pathlib import Path
from typing import Literal

import pytest

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.joining_adder import JoiningAdder
from gateformer.hw.verilog import to_verilog
from gateformer.sim.bench import run_bench

_LUTS = "".join(
    f"module LUT{n} #(parameter [{2**n - 1}:0] INIT = 0) (input {', '.join('ABCD'[:n])}, output Z);"
    f" assign Z = INIT[{{{', '.join('ABCD'[n - 1 :: -1])}}}]; endmodule\n"
    for n in (2, 4)
)
"""The LUTs that Yosys' model of CCU2C is made of."""
BENCH = str(Path(__file__).with_name("bench_joining_adder.py"))


@pytest.mark.parametrize("join", ["or", "xor"])
def test_sum(join: Literal["or", "xor"], tmp_path: Path) -> None:
    run_bench(
        JoiningAdder(17, join=join),
        BENCH,
        tmp_path / "bench",
        environment={"WIDTH": "17", "JOIN": join},
    )


@pytest.mark.parametrize("join", ["or", "xor"])
@pytest.mark.parametrize("width", [5, 8])
def test_ecp5_is_proven_equal(join: Literal["or", "xor"], width: int, tmp_path: Path) -> None:
    """By Yosys' own model of CCU2C."""
    (tmp_path / "luts.v").write_text(_LUTS)
    for family in ("generic", "ecp5"):
        adder = JoiningAdder(width, join=join, family=family)
        (tmp_path / f"{family}.v").write_text(to_verilog(adder, name=family))
    script = (
        "read_verilog +/ecp5/ccu2c_sim.vh luts.v generic.v ecp5.v; hierarchy; proc; flatten; "
        "miter -equiv -flatten -make_assert generic ecp5 both; hierarchy -top both; "
        "flatten; opt_clean; sat -verify -prove-asserts both"
    )
    run_tool("yosys", ["-p", script], folder=tmp_path, log="yosys.log")
