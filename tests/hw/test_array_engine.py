"""The array engine against numpy's integer products, on shapes of each kind."""

from pathlib import Path

import pytest

from gateformer.hw.array_engine import ArrayEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY

BENCH = str(Path(__file__).with_name("bench_array_engine.py"))
CONFIGS = [
    TINY.replace(name="1x2x8", a_depth=16, b_depth=24),
    TINY.replace(
        name="3x2x1", rows=3, cols=2, lanes=1, a_depth=24, b_depth=40, accumulator_tiles=5
    ),
    ECP5_85K.replace(name="4x4x8", a_depth=40, b_depth=200, accumulator_tiles=6),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_products(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(ArrayEngine(config), BENCH, tmp_path / "bench", environment=environment)
