"""Random words through all queues, with engines and semaphores that answer at random."""

import json
import os
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start, wait_until

from gateformer.hw.instruction_queue import HELD, blame_delay
from gateformer.hw.interfaces import instruction_bits
from gateformer.hw.queue_ports import REGIONS, VISITS
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
Words = tuple[int, ...]
LAST = WORDS - 1


def number(words: Words) -> int:
    """The address in the words, where the sequencer has put the instruction's number."""
    return 32 * (words[0] >> 16 | (words[1] >> 12 & 7) << 16)


def payload(words: Words, engine: Engine) -> int:
    value = sum(word << 32 * i for i, word in enumerate(words))
    return value & instruction_bits(engine)


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
        gap = 0
        while True:
            await FallingEdge(self.dut.clk)
            ready = seen and rng.random() < self.pace
            self._set(self.stream + "ready", int(ready))
            tokens = {name: rng.random() < self.grant for name in ("wait", "signal")}
            if self.synchronized:
                for name, value in tokens.items():
                    self._set(f"{port}{name}_ready", int(value))
            await ReadOnly()
            if self._get("rst"):
                self.expected.clear()
                self.completed = gap = 0
                granted = signalled = seen = False
                continue
            valid = self._get(self.stream + "valid")
            assert self._bit("active") == valid
            assert self._bit("completed") == (valid and ready)
            if self.synchronized and self._get(port + "signal_valid"):
                assert self._get(port + "signal_mask") == self.last[0] >> 10 & 63
                assert self.completed and not signalled and not valid
                signalled = tokens["signal"]
            if self.synchronized and self._get(port + "wait_valid"):
                # Of the instruction after the one at the engine.
                assert not granted
                assert self._bit("waiting") == (not valid)
                assert self._get(port + "wait_mask") == self.expected[valid][0] >> 4 & 63
                granted = tokens["wait"]
            if valid and not seen:
                words = self.expected[0]
                assert self._get(self.stream + "payload") == payload(words, self.engine)
                assert self._get(f"pc__{self.engine.value}") == number(words)
                if self.synchronized:
                    assert granted
                    assert signalled or not self.completed
                signalled = granted = False
                self.gaps.append(gap)
                gap = 0
            gap += not valid
            if valid and ready:
                self.last = self.expected.popleft()
                self.completed += 1
            seen = bool(valid and not ready)


class Writer:
    """Writes instructions as the sequencer does: to up to three engines, word by word in turns."""

    def __init__(self, dut: Any, rng: random.Random, models: Mapping[Engine, Any]) -> None:
        self.dut, self.rng, self.models = dut, rng, models
        dut.write__enable.value = 0
        dut.write__engine.value = 0
        dut.lookup__want.value = 0

    async def full(self, engine: Engine) -> bool:
        self.dut.write__engine.value = int(engine)
        await FallingEdge(self.dut.clk)
        await ReadOnly()
        value = bool(int(self.dut.write__full.value))
        await FallingEdge(self.dut.clk)
        return value

    async def write(self, engines: list[Engine], *, tokens: bool) -> None:
        words = [self.rng.getrandbits(32) for _ in range(WORDS)]
        if not tokens:
            words[0] &= 0xFFFF000F
        await self.words(engines, words)

    async def words(self, engines: list[Engine], words: list[int]) -> None:
        """Writes these words."""
        rng = self.rng
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
                if index == LAST:
                    self.models[engine].expected.append(tuple(words))
                await FallingEdge(self.dut.clk)
                self.dut.write__enable.value = 0


async def settled(dut: Any) -> None:
    """Waits until the queues have forgotten what they held before a reset."""
    for _ in range(REGIONS + 1):
        await FallingEdge(dut.clk)


async def prepare(dut: Any, seed: int) -> tuple[Writer, dict[Engine, EngineModel]]:
    rng = make_rng(seed)
    models = {e: EngineModel(dut, e, rng) for e in Engine}
    writer = Writer(dut, rng, models)
    await start(dut)
    await settled(dut)
    return writer, models


async def drain(dut: Any, models: dict[Engine, EngineModel]) -> None:
    await wait_until(dut, lambda: not any(model.expected for model in models.values()))
    for _ in range(VISITS + 20):
        await FallingEdge(dut.clk)
    assert int(dut.empty.value)


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
            if rng.random() < 0.1:
                empty = 0
                while empty < VISITS and any(m.expected for m in models.values()):
                    await FallingEdge(dut.clk)
                    empty = empty + 1 if int(dut.empty.value) else 0
                assert not any(m.expected for m in models.values())
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
        for _ in range(CONFIG.queue_depth - HELD + 2):
            await writer.write([e], tokens=False)
            # Until it was loaded, if there is room.
            for _ in range(40):
                await FallingEdge(dut.clk)
        assert await writer.full(e)
        for other in Engine:
            assert await writer.full(other) == (other <= e)
    for e, model in models.items():
        model.pace = 0.05
        await wait_until(dut, lambda model=model: not model.expected)
        gaps = model.gaps[1:]
        if e not in SYNC_ENGINES:
            assert min(gaps) == 0, (e, gaps)
        else:
            # The tokens of the last one are handed in at once.
            assert min(gaps) == 1, (e, gaps)
        assert max(gaps) <= 26, (e, gaps)
    await drain(dut, models)


async def look_up(dut: Any, model: Any, e: Engine, cycles: int) -> tuple[int, list[int | None]]:
    """Asks for what an engine has in hand after some cycles: the address found, and what was at the
    engine in each of them. A restart must follow."""
    history: list[int | None] = []
    for _ in range(cycles):
        await FallingEdge(dut.clk)
        await ReadOnly()
        valid = int(getattr(dut, model.stream + "valid").value)
        history.append(int(getattr(dut, f"pc__{e.value}").value) if valid else None)
    await FallingEdge(dut.clk)
    dut.lookup__want.value = 1
    dut.lookup__engine.value = int(e)
    await wait_until(dut, lambda: bool(int(dut.lookup__found.value)), 100)
    return int(dut.lookup__pc.value), history


async def restart(dut: Any) -> None:
    """Resets the unit after a lookup."""
    dut.rst.value = 1
    dut.lookup__want.value = 0
    await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
async def lookups(dut: Any) -> None:
    """The address of what was at an engine blame_delay - 2 cycles ago, or of what waits for it."""
    writer, models = await prepare(dut, 23)
    rng = writer.rng
    for turn in range(60):
        e = rng.choice(list(Engine))
        model = models[e]
        for one in models.values():
            one.pace, one.grant = 0.1, rng.choice((0.0, 0.3))
        for _ in range(rng.randrange(1, 4)):
            await writer.write([e], tokens=True)
        found, history = await look_up(dut, model, e, 30 + rng.randrange(30))
        past = history[-blame_delay(CONFIG) + 1]
        if past is not None:
            assert found == past, (turn, e.name)
        elif model.expected and not any(history[-20:]) and not model.grant:
            assert found == number(model.expected[0]), (turn, e.name)
        await restart(dut)
        await settled(dut)
