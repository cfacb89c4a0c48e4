"""A row's constants at the widths of the largest board and of the smallest."""

from pathlib import Path

import pytest

from gateformer.hw.vector_constants import RowConstants
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY

BENCH = str(Path(__file__).with_name("bench_vector_constants.py"))


@pytest.mark.parametrize("config", [ECP5_85K, TINY], ids=lambda config: config.name)
def test_constants(config: AcceleratorConfig, tmp_path: Path) -> None:
    unit = RowConstants(config.replace(family="generic"))
    environment = {"CONFIG": config.to_json(), "LATENCY": str(unit.latency)}
    run_bench(unit, BENCH, tmp_path / "bench", environment=environment)
