"""The whole accelerator: host bus, programs in DRAM, a product, errors, counters."""

import json
from pathlib import Path

import pytest

from gateformer.hw.accelerator import Accelerator
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import SMALL, TINY


@pytest.mark.parametrize(
    "config",
    [TINY.replace(family="generic"), SMALL.replace(family="generic")],
    ids=lambda c: c.name,
)
def test_accelerator(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(watchdog_cycles=5000)
    run_bench(
        Accelerator(config, trace=True),
        str(Path(__file__).with_name("bench_whole_accelerator.py")),
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
