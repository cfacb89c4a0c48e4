"""The scaling lane against gateformer.spec.arithmetic."""

import json
from pathlib import Path

import pytest

from gateformer.hw.epilogue_lane import ScalingLane
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_epilogue_lane.py"))


@pytest.mark.parametrize(
    ("residual_bits", "activation_bits", "activation_latency"), [(16, 10, 2), (13, 8, 5)]
)
def test_lane(
    residual_bits: int, activation_bits: int, activation_latency: int, tmp_path: Path
) -> None:
    config = ECP5_85K.replace(
        name="test",
        family="generic",
        residual_bits=residual_bits,
        activation_bits=activation_bits,
    )
    lane = ScalingLane(config, activation_latency=activation_latency)
    times = {
        "residual": lane.RESIDUAL_TIME,
        "code": lane.CODE_TIME,
        "activated": lane.activated_time,
        "output": lane.output_time,
    }
    assert list(times.values()) == [9, 10, 10 + activation_latency, 12 + activation_latency]
    run_bench(
        lane,
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict()), "TIMES": json.dumps(times)},
    )
