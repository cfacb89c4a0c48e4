"""Size and speed of generated Verilog on an FPGA, by Yosys and nextpnr."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateformer.boards.yowasp import check_yosys, run_tool
from gateformer.spec.errors import ToolError


@dataclass(frozen=True, kw_only=True)
class Device:
    """An FPGA: how Yosys maps to it, how nextpnr is called, and what its cells are named."""

    name: str
    family: str
    """The config's family whose primitives suit this device."""
    synthesis: str
    """The Yosys command, without top and labels."""
    nextpnr: str
    nextpnr_arguments: tuple[str, ...]
    flip_flop: str
    """A flip-flop as Verilog text with the places {clk}, {d} and {q}."""
    cells: Mapping[str, tuple[str, ...]]
    """For each figure of the report, the cell types that it counts; "SB_DFF*" is a prefix."""


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="ecp5-85k",
            family="ecp5",
            # Wide multiplexers save no LUT, since each takes the LUTs of its slice, and they make
            # the count of LUT4 depend on how lucky the mapper was.
            synthesis="synth_ecp5 -nowidelut -abc9",
            nextpnr="nextpnr-ecp5",
            # The placer's own weight of timing against wire length, 10, is too small where block
            # RAMs pull a core apart; 100 is too large.
            nextpnr_arguments=(
                *("--85k", "--package", "CABGA756", "--speed", "6", "--freq", "125"),
                *("--lpf-allow-unconstrained", "--placer-heap-timingweight", "40"),
            ),
            flip_flop='TRELLIS_FF #(.GSR("DISABLED"), .CEMUX("1"), .CLKMUX("CLK"), '
            '.LSRMUX("LSR"), .REGSET("RESET")) '
            "ff (.CLK({clk}), .CE(1'b1), .LSR(1'b0), .DI({d}), .Q({q}))",
            cells={
                "lut4": ("LUT4",),
                "ccu2c": ("CCU2C",),
                "ff": ("TRELLIS_FF",),
                "dsp": ("MULT18X18D", "MULT9X9D"),
                "bram": ("DP16KD", "PDPW16KD"),
                "lutram": ("TRELLIS_DPR16X4",),
            },
        ),
        Device(
            name="ice40-up5k",
            family="ice40",
            # No `delete t:$meminit_v2` for the SPRAM: to_verilog prints no zero contents, and the
            # contents of ROMs must stay.
            synthesis="synth_ice40 -device u -dsp -spram -abc9",
            nextpnr="nextpnr-ice40",
            nextpnr_arguments=("--up5k", "--package", "sg48", "--freq", "24"),
            flip_flop="SB_DFF ff (.C({clk}), .D({d}), .Q({q}))",
            cells={
                "lut4": ("SB_LUT4",),
                "ff": ("SB_DFF*",),
                "dsp": ("SB_MAC16",),
                "bram": ("SB_RAM40_4K*",),
                "spram": ("SB_SPRAM256KA",),
            },
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class SynthesisReport:
    """What a netlist needs of a device and, after placing and routing, how fast it is."""

    device: str
    macs: int | None = None
    lut4: int = 0
    ccu2c: int = 0
    """Carry cells of ECP5; each takes the place of two LUT4."""
    ff: int = 0
    dsp: int = 0
    bram: int = 0
    spram: int = 0
    lutram: int = 0
    """16x4 RAMs made of LUTs (ECP5); each takes two slices, which `lut_eq` does not count."""
    fmax_mhz: list[float] = field(default_factory=list)
    """One figure a seed; empty without placing and routing."""
    utilization: dict[str, int] = field(default_factory=dict)
    """Cells in nextpnr's own units, those in use only; pins and flip-flops of the pin-saving
    wrapper included."""

    @property
    def lut_eq(self) -> int:
        """LUT4 + 2 x CCU2C."""
        return self.lut4 + 2 * self.ccu2c

    @property
    def trellis_comb(self) -> int | None:
        """nextpnr's own count of ECP5 LUT places; None before placing and on other families."""
        return self.utilization.get("TRELLIS_COMB")

    def as_dict(self) -> dict[str, Any]:
        """The fields and properties as plain values for a JSON file."""
        figures = dataclasses.asdict(self)
        return {**figures, "lut_eq": self.lut_eq, "trellis_comb": self.trellis_comb}


def synthesize(
    verilog: str,
    device: Device,
    *,
    top: str,
    build_dir: Path,
    macs: int | None = None,
    pnr: bool = False,
    seeds: int = 1,
    progress: Callable[[str], None] = lambda step: None,
) -> SynthesisReport:
    """Maps module `top` of the text `verilog` to a device and counts its cells.

    pnr: also place and route, with the seeds 1 to `seeds`, for clock `clk`. The netlist is then
    wrapped so that it needs two pins: see :func:`pin_saving_wrapper`. build_dir takes sources,
    netlists and logs. progress: called with a sentence before each step; a step takes seconds to
    minutes. Raises ToolError when a tool is missing, known to be bad, or fails.
    """
    check_yosys()
    try:
        build_dir.mkdir(parents=True, exist_ok=True)
        (build_dir / "core.v").write_text(verilog, encoding="utf-8")
    except OSError as error:
        raise ToolError(f"cannot write to {build_dir}: {error.strerror}") from None
    progress(f"Yosys: {top} for {device.name}")
    # splitnets: ABC9 fails on some vectors whose bits it renames alone (YosysHQ/yosys#4349).
    script = (
        f"read_verilog core.v; {device.synthesis} -top {top} -run begin:map_luts; splitnets; "
        f"{device.synthesis} -run map_luts:; tee -q -o stat.json stat -json; write_json core.json"
    )
    run_tool("yosys", ["-p", script], folder=build_dir, log="yosys.log")
    cells = json.loads((build_dir / "stat.json").read_text())["design"]["num_cells_by_type"]
    counts: dict[str, Any] = {name: _count(cells, kinds) for name, kinds in device.cells.items()}
    report = dataclasses.replace(SynthesisReport(device=device.name, macs=macs), **counts)
    if not pnr:
        return report

    ports = json.loads((build_dir / "core.json").read_text())["modules"][top]["ports"]
    (build_dir / "wrapper.v").write_text(pin_saving_wrapper(ports, device, core=top))
    script = (
        "read_json core.json; read_verilog wrapper.v; "
        "hierarchy -top wrapper; flatten; write_json wrapper.json"
    )
    run_tool("yosys", ["-p", script], folder=build_dir, log="wrapper.log")
    fmax, utilization = [], {}
    for seed in range(1, seeds + 1):
        progress(f"nextpnr: {top} for {device.name}, seed {seed} of {seeds}")
        placed = _place_and_route(device, seed, build_dir)
        fmax.append(round(min(clock["achieved"] for clock in placed["fmax"].values()), 2))
        utilization = {k: v["used"] for k, v in placed["utilization"].items() if v["used"]}
    return dataclasses.replace(report, fmax_mhz=fmax, utilization=utilization)


def pin_saving_wrapper(ports: Mapping[str, Any], device: Device, *, core: str) -> str:
    """Verilog of module `wrapper`, which lets a core with more ports than pins be timed.

    Each input comes from a flip-flop of one long shift register, each output goes to a flip-flop
    that nobody reads. So every path of the core starts and ends in a register and counts towards
    Fmax, and the wrapper takes flip-flops but not one LUT. (nextpnr's --out-of-context would leave
    the clock off the global network.) ports: as in Yosys' JSON.
    """
    connections, registers = [".clk(clk)"], []
    shift = "serial"
    for name, port in sorted(ports.items()):
        if name == "clk":
            continue
        net, width = f"port_{len(connections)}", len(port["bits"])
        connections.append(f".\\{name} ({net})")
        registers.append(f"  wire [{width - 1}:0] {net};")
        for bit in range(width):
            place, q = f"{net}[{bit}]", f"{net}_{bit}_q"
            if port["direction"] == "input":
                flip_flop = device.flip_flop.format(clk="clk", d=shift, q=place)
                shift = place
            else:
                registers.append(f"  wire {q};")
                flip_flop = device.flip_flop.format(clk="clk", d=place, q=q)
            registers.append(f"  (* keep *) {flip_flop.replace(' ff (', f' {q}_ff (')};")
    return "\n".join(
        [
            "module wrapper (input clk, input serial);",
            *registers,
            f"  {core} core ({', '.join(connections)});",
            "endmodule\n",
        ]
    )


def _place_and_route(device: Device, seed: int, folder: Path) -> dict[str, Any]:
    report = folder / f"report-{seed}.json"
    arguments = [
        *device.nextpnr_arguments,
        *("--json", "wrapper.json", "--report", report.name, "--seed", str(seed)),
        "--timing-allow-fail",
    ]
    run_tool(device.nextpnr, arguments, folder=folder, log=f"nextpnr-{seed}.log")
    record: dict[str, Any] = json.loads(report.read_text())
    if not record["fmax"]:
        raise ToolError(f"nextpnr found no clock to time; its log is {folder}/nextpnr-{seed}.log")
    return record


def _count(cells: Mapping[str, int], kinds: tuple[str, ...]) -> int:
    return sum(
        number
        for cell, number in cells.items()
        if any(cell == k or (k.endswith("*") and cell.startswith(k[:-1])) for k in kinds)
    )
