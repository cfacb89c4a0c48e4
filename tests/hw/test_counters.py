"""Counters: totals of random events, exact to the cycle."""

from pathlib import Path

from gateformer.hw.counters import Counters
from gateformer.sim.bench import run_bench


def test_counters(tmp_path: Path) -> None:
    run_bench(Counters(), str(Path(__file__).with_name("bench_counters.py")), tmp_path / "b")
