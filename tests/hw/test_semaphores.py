"""Semaphores: random takes and gives against counters in Python."""

from pathlib import Path

from gateformer.hw.semaphores import Semaphores
from gateformer.sim.bench import run_bench


def test_semaphores(tmp_path: Path) -> None:
    run_bench(Semaphores(), str(Path(__file__).with_name("bench_semaphores.py")), tmp_path / "b")
