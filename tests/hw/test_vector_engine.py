"""The vector engine on random programs, at several widths."""

from pathlib import Path

import pytest

from gateformer.hw.vector_engine import VectorEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, TINY

BENCH = str(Path(__file__).with_name("bench_vector_engine.py"))
CONFIGS = [
    TINY.replace(name="1-1-8", multipliers="dsp", norm_length=32, residual_bits=14),
    ECP5_85K.replace(name="8-4-8", softmax_lanes=8, norm_lanes=4),
    ECP5_85K.replace(name="8-4-16", softmax_lanes=8, norm_lanes=4, norm_constants=4, word_bytes=16),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_programs(config: AcceleratorConfig, tmp_path: Path) -> None:
    config = config.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorEngine(config), BENCH, tmp_path / "bench", environment=environment)
