"""The systolic array against numpy's integer products."""

from pathlib import Path

import pytest

from gateformer.hw.systolic_array import SystolicArray
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_systolic_array.py"))
CONFIGS = [
    ECP5_85K.replace(name="3x2x1", rows=3, cols=2, lanes=1, epilogue_lanes=1),
    ECP5_85K.replace(name="2x4x8", rows=2),
    ECP5_85K.replace(name="2x1x4", rows=2, cols=1, lanes=4, lut_multipliers=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_sums(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(SystolicArray(config), BENCH, tmp_path / "bench", environment=environment)
