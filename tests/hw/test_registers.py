"""Registers: every register of the map, with and without the way to local memory."""

import json
from pathlib import Path

import pytest

from gateformer.hw.registers import Registers
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import SMALL

BENCH = str(Path(__file__).with_name("bench_registers.py"))


@pytest.mark.parametrize(("dram", "word_bytes"), [("readwrite", 8), ("none", 16)])
def test_registers(dram: str, word_bytes: int, tmp_path: Path) -> None:
    config = SMALL.replace(dram=dram, word_bytes=word_bytes)
    run_bench(
        Registers(config),
        BENCH,
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
