"""The scheduler of instructions, between a writer and engines."""

import json
from pathlib import Path

import pytest

from gateformer.hw.instruction_scheduler import InstructionScheduler
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import TINY


@pytest.mark.parametrize("queue_depth", [4, 8])
def test_instruction_scheduler(queue_depth: int, tmp_path: Path) -> None:
    config = TINY.replace(queue_depth=queue_depth)
    run_bench(
        InstructionScheduler(config),
        str(Path(__file__).with_name("bench_instruction_scheduler.py")),
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
