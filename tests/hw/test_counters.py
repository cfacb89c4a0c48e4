"""Counters: totals of random events, exact to the cycle."""

from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.lib.wiring import Component

from gateformer.hw.counters import Counters, CycleCounter
from gateformer.sim.bench import run_bench


@pytest.mark.parametrize("make", [Counters, CycleCounter])
def test_counters(make: Callable[[], Component], tmp_path: Path) -> None:
    run_bench(
        make(),
        str(Path(__file__).with_name("bench_counters.py")),
        tmp_path / "b",
        environment={"COUNTERS": str(int(make is Counters))},
    )
