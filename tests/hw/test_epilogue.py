"""The whole epilogue in some shapes and both forms, against gateformer.spec.arithmetic."""

import json
from pathlib import Path

import pytest

from gateformer.hw.epilogue import Epilogue
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, ECP5_85K_256, TINY

BENCH = str(Path(__file__).with_name("bench_epilogue.py"))

SHAPES = (
    ECP5_85K.replace(name="4x4", family="generic", p_depth=64),
    ECP5_85K.replace(
        name="3x2",
        family="generic",
        rows=3,
        cols=2,
        lanes=1,
        word_bytes=16,
        epilogue_lanes=3,
        p_depth=48,
        residual_bits=14,
        gelu="polynomial",
    ),
    ECP5_85K_256.replace(name="4x4x16", family="generic", p_depth=64),
    TINY.replace(name="2x1", family="generic", rows=2, cols=1, p_depth=32, multipliers="dsp"),
    TINY.replace(name="1x2-serial", family="generic", p_depth=32, prefetch=True),
    TINY.replace(
        name="3x2-serial",
        family="generic",
        rows=3,
        cols=2,
        word_bytes=16,
        p_depth=48,
        activation_bits=10,
        residual_bits=13,
        prefetch=True,
    ),
)


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.name)
def test_epilogue(config: AcceleratorConfig, tmp_path: Path) -> None:
    run_bench(
        Epilogue(config),
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
