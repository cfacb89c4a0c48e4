"""The norm at the widths of the largest boards."""

from pathlib import Path

import pytest

from gateformer.hw.vector_engine import VectorEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, ECP5_85K_256

BENCH = str(Path(__file__).with_name("bench_norm.py"))


@pytest.mark.parametrize("config", [ECP5_85K, ECP5_85K_256], ids=lambda config: config.name)
def test_norm(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorEngine(config), BENCH, tmp_path / "bench", environment=environment)
