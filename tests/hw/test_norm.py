"""The norm at the width of the largest board, and without multipliers."""

from pathlib import Path

import pytest

from gateformer.hw.vector_engine import VectorEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY

BENCH = str(Path(__file__).with_name("bench_norm.py"))


CONFIGS = [ECP5_85K, TINY.replace(name="serial", norm_length=16)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_norm(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorEngine(config), BENCH, tmp_path / "bench", environment=environment)
