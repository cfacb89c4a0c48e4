"""The instruction queues and their front ends, between a writer, semaphores and engines."""

import json
from pathlib import Path

from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.sim.bench import run_bench
from gateformer.spec.configs import TINY


def test_instruction_queues(tmp_path: Path) -> None:
    config = TINY.replace(prefetch=True)
    run_bench(
        InstructionQueues(config),
        str(Path(__file__).with_name("bench_instruction_queue.py")),
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
