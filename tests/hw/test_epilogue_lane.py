"""The scaling lane against gateformer.spec.arithmetic."""

import json
from pathlib import Path

import pytest

from gateformer.hw.epilogue_lane import ScalingLane
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_epilogue_lane.py"))


@pytest.mark.parametrize(
    ("residual_bits", "activation_bits", "residual_time"), [(16, 10, 0), (13, 8, 9)]
)
def test_lane(residual_bits: int, activation_bits: int, residual_time: int, tmp_path: Path) -> None:
    config = ECP5_85K.replace(
        name="test",
        family="generic",
        residual_bits=residual_bits,
        activation_bits=activation_bits,
    )
    lane = ScalingLane(config, residual_time=residual_time)
    times = (lane.residual_time, lane.code_time, lane.result_time)
    assert times == (max(residual_time, 7), max(residual_time, 7) + 1, max(residual_time, 7) + 2)
    run_bench(
        lane,
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict()), "TIMES": json.dumps(times)},
    )
