"""The multiplier primitive: its generic form against Python, its ECP5 form through Yosys."""

import json
from pathlib import Path

import pytest
from amaranth import Shape, signed, unsigned

from gateformer.boards.yowasp import run_tool
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.verilog import to_verilog
from gateformer.sim.bench import run_bench

BENCH = str(Path(__file__).with_name("bench_multiplier.py"))


@pytest.mark.parametrize(
    ("a", "b"), [(signed(8), signed(8)), (signed(18), unsigned(17))], ids=["int8", "mixed"]
)
def test_product(a: Shape, b: Shape, tmp_path: Path) -> None:
    names = {n: f"{'s' if s.signed else 'u'}{s.width}" for n, s in (("A", a), ("B", b))}
    run_bench(Multiplier(a, b), BENCH, tmp_path / "bench", environment=names)


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
