"""Runs a cocotb bench on the Verilog of one component."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from amaranth.lib.wiring import Component
from cocotb_tools.runner import get_runner

from gateformer.hw.verilog import to_verilog
from gateformer.sim import verilator

LINT = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-UNOPTFLAT", "-Wno-lint")


def run_bench(
    component: Component,
    bench: str,
    build: Path,
    *,
    environment: Mapping[str, str] | None = None,
    sources: tuple[Path, ...] = (),
) -> None:
    """Builds `component` with Verilator and runs every cocotb test of module `bench` on it.

    bench: path of a Python file with cocotb tests, whose `dut` is the component with ports as in
    its Verilog (`clk`, `rst`, `request__valid`, ...). build: an empty folder for the products.
    environment: variables that the bench reads. Raises AssertionError when a test fails.
    """
    top = "dut_top"
    build.mkdir(parents=True, exist_ok=True)
    source = build / f"{top}.v"
    source.write_text(to_verilog(component, name=top))
    saved = dict(os.environ)
    os.environ.update(verilator.environment())
    os.environ["MAKEFLAGS"] += " OPT_FAST=-O1 OPT_GLOBAL=-O2"
    try:
        runner = get_runner("verilator")
        runner.build(
            sources=[source, *sources],
            hdl_toplevel=top,
            build_dir=build,
            build_args=[*LINT, "-CFLAGS", "-std=c++17"],
            log_file=build / "build.log",
        )
        path = Path(bench)
        results = runner.test(
            hdl_toplevel=top,
            test_module=path.stem,
            build_dir=build,
            test_dir=build,
            extra_env={
                **(environment or {}),
                "PYTHONPATH": f"{path.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            },
            log_file=build / "test.log",
        )
    finally:
        os.environ.clear()
        os.environ.update(saved)
    report = Path(results).read_text()
    if re.search(r"<failure|<error", report) or "<testcase" not in report:
        lines = (build / "test.log").read_text().splitlines()
        raise AssertionError("\n".join(lines[-60:]))
