"""Local memory with one and two ports."""

import json
from pathlib import Path

import pytest

from gateformer.hw.local_memory import LocalMemory
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import SMALL

BENCH = str(Path(__file__).with_name("bench_local_memory.py"))


@pytest.mark.parametrize(("ports", "word_bytes"), [(1, 8), (2, 16)])
def test_local_memory(ports: int, word_bytes: int, tmp_path: Path) -> None:
    config = SMALL.replace(
        name="test", family="generic", local_kib=3, memory_ports=ports, word_bytes=word_bytes
    )
    run_bench(
        LocalMemory(config),
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
