"""Random words through all queues, with engines and semaphores that answer at random."""

import json
import os
import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start, wait_until

from gateformer.hw.instruction_queue import PC_INDEX
from gateformer.hw.interfaces import ENGINE_WORDS
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine, Opcode

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
Words = tuple[int, ...]


def masks(engine: Engine, words: Words) -> tuple[int, int]:
    """The wait and the signal mask that count for the engine."""
    low = 16 if engine == Engine.EPILOGUE and words[0] & 15 == Opcode.GEMM else 4
    return words[0] >> low & 63, words[0] >> low + 6 & 63


class EngineModel:
    """One engine and its semaphores; checks the order of everything its front end does."""

    def __init__(self, dut: Any, engine: Engine, rng: random.Random) -> None:
        self.dut, self.engine, self.rng = dut, engine, rng
        self.pace, self.grant = 0.5, 0.4
        self.expected: deque[Words] = deque()
        self.completed = 0
        self.gaps: list[int] = []
        self.stream = f"{engine.name.lower()}__stream__"
        self.synchronized = engine in SYNC_ENGINES
        self._set(self.stream + "ready", 0)
        cocotb.start_soon(self._run())

    def _set(self, name: str, value: int) -> None:
        getattr(self.dut, name).value = value

    def _get(self, name: str) -> int:
        return int(getattr(self.dut, name).value)

    def _bit(self, name: str) -> int:
        return self._get(name) >> self.engine & 1

    async def _run(self) -> None:
        rng, port = self.rng, f"semaphores__{self.engine.value}__"
        granted = signalled = False
        seen = False
        gap = since = 0
        while True:
            await FallingEdge(self.dut.clk)
            ready = seen and rng.random() < self.pace
            self._set(self.stream + "ready", int(ready))
            tokens = {name: rng.random() < self.grant for name in ("wait", "signal")}
            if self.synchronized:
                for name, value in tokens.items():
                    self._set(f"{port}{name}_ready", int(value))
            await ReadOnly()
            valid = self._get(self.stream + "valid")
            assert self._bit("active") == valid
            assert self._bit("completed") == (valid and ready)
            if self.synchronized and self._get(port + "signal_valid"):
                # Of the instruction that completes now, or of the last one completed.
                words = self.expected[0] if valid else self.last
                assert self._get(port + "signal_mask") == masks(self.engine, words)[1]
                assert not signalled and (not valid or ready)
                signalled = tokens["signal"]
            if self.synchronized and self._get(port + "wait_valid"):
                assert not valid and not granted
                assert self._bit("waiting")
                assert self._get(port + "wait_mask") == masks(self.engine, self.expected[0])[0]
                assert self._get(f"pc__{self.engine.value}") == self.expected[0][PC_INDEX]
                granted = tokens["wait"]
            if valid and not seen:
                words = self.expected[0]
                payload = sum(words[i] << 32 * i for i in ENGINE_WORDS[self.engine])
                assert self._get(self.stream + "payload") == payload
                assert self._get(f"pc__{self.engine.value}") == words[PC_INDEX]
                if self.synchronized:
                    assert granted or masks(self.engine, words)[0] == 0
                    assert signalled or not self.completed
                signalled = granted = False
                self.gaps.append(gap)
                gap = 0
            gap += not valid
            if valid and ready:
                self.last = self.expected.popleft()
                self.completed += 1
                since = 0
            elif self.completed and since < 10 and self.synchronized:
                # An error of its last access is still put down to it.
                since += 1
                assert self._get(f"pc__{self.engine.value}") == self.last[PC_INDEX]
            seen = bool(valid and not ready)


class Writer:
    """Writes instructions as the sequencer does: to up to three engines, word by word in turns."""

    def __init__(self, dut: Any, rng: random.Random, models: dict[Engine, EngineModel]) -> None:
        self.dut, self.rng, self.models = dut, rng, models
        dut.write__enable.value = 0
        dut.write__engine.value = 0

    async def full(self, engine: Engine) -> bool:
        self.dut.write__engine.value = int(engine)
        await FallingEdge(self.dut.clk)
        await ReadOnly()
        value = bool(int(self.dut.write__full.value))
        await FallingEdge(self.dut.clk)
        return value

    async def write(self, engines: list[Engine], *, tokens: bool) -> None:
        rng = self.rng
        words = [rng.getrandbits(32) for _ in range(WORDS)]
        words[0] = words[0] & ~15 | rng.choice(list(Opcode)[1:])
        if not tokens:
            words[0] &= 15
        words.append(32 * rng.getrandbits(19))
        for index, word in enumerate(words):
            for engine in engines:
                while index == 0 and await self.full(engine):
                    pass
                while rng.random() < 0.2:
                    await FallingEdge(self.dut.clk)
                self.dut.write__enable.value = 1
                self.dut.write__engine.value = int(engine)
                self.dut.write__index.value = index
                self.dut.write__data.value = word
                if index == PC_INDEX:
                    self.models[engine].expected.append(tuple(words))
                await FallingEdge(self.dut.clk)
                self.dut.write__enable.value = 0


async def prepare(dut: Any, seed: int) -> tuple[Writer, dict[Engine, EngineModel]]:
    rng = make_rng(seed)
    models = {e: EngineModel(dut, e, rng) for e in Engine}
    writer = Writer(dut, rng, models)
    await start(dut)
    return writer, models


async def drain(dut: Any, models: dict[Engine, EngineModel]) -> None:
    await wait_until(dut, lambda: not any(model.expected for model in models.values()))
    await wait_until(dut, lambda: bool(int(dut.empty.value)), 100)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Everything arrives in order, after its tokens; empty tells the truth."""
    writer, models = await prepare(dut, 21)
    rng = writer.rng
    total = dict.fromkeys(Engine, 0)
    for pace in (1.0, 0.3, 0.02):
        for model in models.values():
            model.pace = pace
        for _ in range(150 if pace > 0.1 else 60):
            engines = rng.sample(list(Engine), rng.choice((1, 1, 3)))
            await writer.write(engines, tokens=rng.random() < 0.8)
            assert not int(dut.empty.value) or not any(m.expected for m in models.values())
            for e in engines:
                total[e] += 1
        await drain(dut, models)
        for _ in range(20):
            await FallingEdge(dut.clk)
            assert int(dut.empty.value)
    assert {e: model.completed for e, model in models.items()} == total


@cocotb.test()
async def capacity_and_gaps(dut: Any) -> None:
    """A queue holds queue_depth instructions and fills without the others; queued instructions
    without waits follow each other soon, those of ARRAY at once."""
    writer, models = await prepare(dut, 22)
    for e, model in models.items():
        model.pace, model.grant = 0.0, 1.0
        held = CONFIG.queue_depth + (1 if e in SYNC_ENGINES else 2)
        for _ in range(held):
            await writer.write([e], tokens=False)
        for _ in range(20):
            assert await writer.full(e)
        for other in Engine:
            assert await writer.full(other) == (other <= e)
    for e, model in models.items():
        model.pace = 0.05
        await wait_until(dut, lambda model=model: not model.expected)
        gaps = model.gaps[1:]
        assert max(gaps) <= 18 and (e in SYNC_ENGINES or min(gaps) == 0), (e, gaps)
    await drain(dut, models)
