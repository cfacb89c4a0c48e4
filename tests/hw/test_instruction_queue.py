"""The instruction queues and their front ends, between a writer, semaphores and engines."""

import json
from pathlib import Path

import pytest

from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import TINY


@pytest.mark.parametrize("prefetch", [False, True])
def test_instruction_queues(prefetch: bool, tmp_path: Path) -> None:
    config = TINY.replace(prefetch=prefetch)
    run_bench(
        InstructionQueues(config),
        str(Path(__file__).with_name("bench_instruction_queue.py")),
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
