"""The activation unit: both forms, both widths, all codes."""

import json
from pathlib import Path

import pytest

from gateformer.hw.activation import Activation
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_activation.py"))


@pytest.mark.parametrize(("gelu", "bits"), [("table", 8), ("table", 10), ("polynomial", 10)])
def test_activation(gelu: str, bits: int, tmp_path: Path) -> None:
    config = ECP5_85K.replace(
        name="test", family="generic", gelu=gelu, activation_bits=bits, word_bytes=16
    )
    unit = Activation(config)
    assert unit.latency == {"table": 2, "polynomial": 16}[gelu]
    run_bench(
        unit,
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict()), "LATENCY": str(unit.latency)},
    )
