"""Softmax at the width of the largest board, and at a word a cycle."""

from pathlib import Path

import pytest

from gateformer.hw.vector_engine import VectorEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_softmax.py"))


@pytest.mark.parametrize("lanes", [4, 8])
def test_softmax(lanes: int, tmp_path: Path) -> None:
    config = ECP5_85K.replace(softmax_lanes=lanes, family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorEngine(config), BENCH, tmp_path / "bench", environment=environment)
