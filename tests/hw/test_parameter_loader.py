"""LOAD_P and its ring, with one and with two records in a word."""

import json
from pathlib import Path

import pytest

from gateformer.hw.parameter_loader import ParameterLoader
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import ECP5_85K

BENCH = str(Path(__file__).with_name("bench_parameter_loader.py"))


@pytest.mark.parametrize(("word_bytes", "p_depth"), [(8, 16), (32, 36)])
def test_parameter_loader(word_bytes: int, p_depth: int, tmp_path: Path) -> None:
    config = ECP5_85K.replace(name="test", family="generic", word_bytes=word_bytes, p_depth=p_depth)
    assert ParameterLoader.READ_LATENCY == 2
    run_bench(
        ParameterLoader(config),
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
