"""The DRAM arbiter, and the fetch that takes its place without external memory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.lib.wiring import Component

from gateformer.hw.dram_arbiter import DramArbiter
from gateformer.hw.dram_turns import DramTurns
from gateformer.hw.local_fetch import LocalFetch
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import SMALL

BENCH = str(Path(__file__).with_name("bench_dram_arbiter.py"))


def run(unit: Component, name: str, config: AcceleratorConfig, build: Path) -> None:
    environment = {"CONFIG": json.dumps(config.as_dict()), "UNIT": name}
    run_bench(unit, BENCH, build, environment=environment)


@pytest.mark.parametrize("make", [DramArbiter, DramTurns])
def test_dram_arbiter(make: Callable[[AcceleratorConfig], Component], tmp_path: Path) -> None:
    config = SMALL.replace(name="test", family="generic")
    run(make(config), "arbiter", config, tmp_path / "build")


@pytest.mark.parametrize("word_bytes", [8, 64])
def test_local_fetch(word_bytes: int, tmp_path: Path) -> None:
    config = SMALL.replace(
        name="test", family="generic", dram="none", local_kib=3, word_bytes=word_bytes
    )
    run(LocalFetch(config), "local_fetch", config, tmp_path / "build")
