"""The vector engine without multipliers, from instructions to written words."""

from pathlib import Path

import pytest

from gateformer.hw.vector_microcode import program
from gateformer.hw.vector_processor import VectorProcessor
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import TINY

BENCH = str(Path(__file__).with_name("bench_vector_processor.py"))
BASE = TINY.replace(family="generic", norm_length=16, prefetch=True)
CONFIGS = [
    BASE.replace(name="8", residual_bits=14),
    BASE.replace(name="16", word_bytes=16, memory_ports=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_vector_processor(config: AcceleratorConfig, tmp_path: Path) -> None:
    environment = {"CONFIG": config.to_json()}
    run_bench(VectorProcessor(config), BENCH, tmp_path / "bench", environment=environment)


@pytest.mark.parametrize("word_bytes", [8, 16, 64])
def test_program_fits(word_bytes: int) -> None:
    config = TINY.replace(word_bytes=word_bytes, local_kib=512, norm_length=1024)
    assert len(program(config)) == 512
