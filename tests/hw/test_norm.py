"""The norm at the width of the largest board."""

from pathlib import Path

from gateformer.hw.vector_engine import VectorEngine
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_norm.py"))


def test_norm(tmp_path: Path) -> None:
    config = ECP5_85K.replace(family="generic")
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorEngine(config), BENCH, tmp_path / "bench", environment=environment)
