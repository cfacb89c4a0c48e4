"""The DMA engine with narrow and wide buses, with and without stores."""

import json
from pathlib import Path

import pytest

from gateformer.hw.dma import Dma
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import SMALL

BENCH = str(Path(__file__).with_name("bench_dma.py"))


@pytest.mark.parametrize(
    ("bus_bytes", "word_bytes", "burst_bytes", "dram"),
    [
        (1, 8, 64, "readonly"),
        (2, 8, 256, "readwrite"),
        (8, 8, 256, "readwrite"),
        (4, 16, 128, "readwrite"),
    ],
)
def test_dma(bus_bytes: int, word_bytes: int, burst_bytes: int, dram: str, tmp_path: Path) -> None:
    config = SMALL.replace(
        name="test",
        family="generic",
        bus_bytes=bus_bytes,
        word_bytes=word_bytes,
        burst_bytes=burst_bytes,
        dram=dram,
    )
    run_bench(
        Dma(config),
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
