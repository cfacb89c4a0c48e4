"""The model of external memory with SDRAM's timing and without misses."""

import dataclasses
import json
from pathlib import Path

import pytest

from gateformer.sim.bench import run_bench
from gateformer.sim.dram import DramModel
from gateformer.spec.configs import SMALL
from gateformer.spec.dram import IDEAL, SDRAM, DramTiming

BENCH = str(Path(__file__).with_name("bench_dram.py"))
STORAGE = Path(__file__).parents[2] / "sim" / "dram_storage.v"


@pytest.mark.parametrize(("timing", "bus_bytes"), [(SDRAM, 2), (IDEAL, 8)], ids=["sdr", "ideal"])
def test_dram(timing: DramTiming, bus_bytes: int, tmp_path: Path) -> None:
    config = SMALL.replace(name="test", bus_bytes=bus_bytes)
    run_bench(
        DramModel(config, size_bytes=1 << 14, timing=timing),
        BENCH,
        tmp_path / "build",
        environment={
            "CONFIG": json.dumps(config.as_dict()),
            "TIMING": json.dumps(dataclasses.asdict(timing)),
        },
        sources=(STORAGE,),
    )
