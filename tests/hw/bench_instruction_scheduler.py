"""Random programs with tokens through the scheduler, with engines that answer at random."""

import random
from collections import Counter, deque
from typing import Any

import cocotb
from bench_instruction_queue import CONFIG, Writer, look_up, number, payload, restart
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start, wait_until

from gateformer.hw.instruction_queue import blame_delay
from gateformer.hw.queue_ports import REGIONS, VISITS
from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, WORDS, Engine, semaphore_exists

Words = tuple[int, ...]


class Tokens:
    """What was given and not yet taken, by (producer, consumer)."""

    def __init__(self) -> None:
        self.count: Counter[tuple[int, int]] = Counter()

    def give(self, engine: int, mask: int) -> None:
        for c in SYNC_ENGINES:
            if mask >> c & 1 and semaphore_exists(Engine(engine), c):
                self.count[engine, c] += 1

    def take(self, engine: int, mask: int) -> None:
        for p in SYNC_ENGINES:
            if mask >> p & 1 and semaphore_exists(p, Engine(engine)):
                self.count[p, engine] -= 1
                assert self.count[p, engine] >= 0, (p, engine)


class EngineModel:
    """One engine; checks the words, order and tokens of its instructions."""

    def __init__(self, dut: Any, engine: Engine, rng: random.Random, tokens: Tokens) -> None:
        self.dut, self.engine, self.rng, self.tokens = dut, engine, rng, tokens
        self.pace = 0.5
        self.expected: deque[Words] = deque()
        self.stream = f"{engine.name.lower()}__stream__"
        getattr(dut, self.stream + "ready").value = 0
        cocotb.start_soon(self._run())

    def _get(self, name: str) -> int:
        return int(getattr(self.dut, name).value)

    async def _run(self) -> None:
        seen = False
        while True:
            await FallingEdge(self.dut.clk)
            ready = seen and self.rng.random() < self.pace
            getattr(self.dut, self.stream + "ready").value = int(ready)
            await ReadOnly()
            if self._get("rst"):
                self.expected.clear()
                seen = False
                continue
            valid = self._get(self.stream + "valid")
            assert self._get("active") >> self.engine & 1 == valid
            assert self._get("completed") >> self.engine & 1 == (valid and ready)
            if valid and not seen:
                words = self.expected[0]
                assert self._get(self.stream + "payload") == payload(words, self.engine)
                assert self._get(f"pc__{self.engine.value}") == number(words)
                if self.engine in SYNC_ENGINES:
                    self.tokens.take(self.engine, words[0] >> 4 & 63)
            if valid and ready:
                words = self.expected.popleft()
                if self.engine in SYNC_ENGINES:
                    self.tokens.give(self.engine, words[0] >> 10 & 63)
            seen = bool(valid and not ready)


class Program:
    """Writes instructions with masks that a program may have."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.order = Tokens()

    async def instruction(self, engines: list[Engine]) -> None:
        """Random words; masks go for the first engine and must suit all."""
        rng, count = self.writer.rng, self.order.count
        wait = signal = 0
        if len(engines) == 1:
            for other in SYNC_ENGINES:
                e = engines[0]
                exists = e in SYNC_ENGINES and semaphore_exists(e, other)
                if rng.random() < 0.6 and (not exists or count[other, e]):
                    wait |= 1 << other
                if rng.random() < 0.5 and (not exists or count[e, other] < SEMAPHORE_MAX):
                    signal |= 1 << other
            if engines[0] in SYNC_ENGINES:
                self.order.take(engines[0], wait)
                self.order.give(engines[0], signal)
        words = [rng.getrandbits(32) for _ in range(WORDS)]
        words[0] = words[0] & 0xFFFF000F | wait << 4 | signal << 10
        await self.writer.words(engines, words)


async def prepare(dut: Any, seed: int) -> tuple[Program, dict[Engine, EngineModel]]:
    rng = make_rng(seed)
    tokens = Tokens()
    models = {e: EngineModel(dut, e, rng, tokens) for e in Engine}
    writer = Writer(dut, rng, models)
    await start(dut)
    await settled(dut)
    return Program(writer), models


async def settled(dut: Any) -> None:
    """Waits until the counters are cleared after a reset."""
    for _ in range(REGIONS):
        await FallingEdge(dut.clk)


@cocotb.test()
async def random_programs(dut: Any) -> None:
    """Everything arrives in order, after its tokens; empty tells the truth."""
    program, models = await prepare(dut, 31)
    rng = program.writer.rng
    for pace in (1.0, 0.1, 0.02):
        for model in models.values():
            model.pace = pace * rng.choice((1, 1, 0.1))
        for _ in range(120 if pace > 0.05 else 60):
            await program.instruction(rng.sample(list(Engine), rng.choice((1, 1, 1, 3))))
            if rng.random() < 0.05:
                empty = 0
                while empty < VISITS and any(m.expected for m in models.values()):
                    await FallingEdge(dut.clk)
                    empty = empty + 1 if int(dut.empty.value) else 0
                assert not any(m.expected for m in models.values())
        await wait_until(dut, lambda: not any(m.expected for m in models.values()), 20000)
        for _ in range(VISITS + 200):
            await FallingEdge(dut.clk)
        assert int(dut.empty.value) and not int(dut.waiting.value)


@cocotb.test()
async def full_counters(dut: Any) -> None:
    """A signal waits until its consumer has taken a token, and holds up its own engine only."""
    program, models = await prepare(dut, 32)
    writer = program.writer
    give = [1 | 1 << 10 + Engine.VECTOR, *[0] * 7]
    take = [7 | 1 << 4 + Engine.DMA, *[0] * 7]
    for _ in range(SEMAPHORE_MAX + 1):
        await writer.words([Engine.DMA], list(give))
    for _ in range(600):
        await FallingEdge(dut.clk)
    assert not models[Engine.DMA].expected
    assert not int(dut.empty.value)
    await writer.words([Engine.DMA], list(give))
    await writer.words([Engine.LOAD_A], [5, *[0] * 7])
    for _ in range(300):
        await FallingEdge(dut.clk)
    assert models[Engine.DMA].expected and not models[Engine.LOAD_A].expected
    for _ in range(SEMAPHORE_MAX + 2):
        await writer.words([Engine.VECTOR], list(take))
    await wait_until(dut, lambda: not any(m.expected for m in models.values()), 5000)
    # One token too few: the engine waits and says so.
    await writer.words([Engine.VECTOR], list(take))
    for _ in range(300):
        await FallingEdge(dut.clk)
    assert int(dut.waiting.value) == 1 << Engine.VECTOR
    assert models[Engine.VECTOR].expected


@cocotb.test()
async def capacity(dut: Any) -> None:
    """Of queue_depth slots of an engine one stays free; no queue fills another."""
    program, models = await prepare(dut, 33)
    writer = program.writer
    for e, model in models.items():
        model.pace = 0.0
        for _ in range(CONFIG.queue_depth - 1):
            assert not await writer.full(e)
            await writer.words([e], [1, *[0] * 7])
        for other in Engine:
            assert await writer.full(other) == (other <= e)
    for model in models.values():
        model.pace = 0.3
    await wait_until(dut, lambda: not any(m.expected for m in models.values()), 5000)


@cocotb.test()
async def lookups(dut: Any) -> None:
    """The address of what was at an engine a few cycles ago, or of what waits for it."""
    program, models = await prepare(dut, 34)
    writer = program.writer
    rng = writer.rng
    for turn in range(60):
        e = rng.choice(list(SYNC_ENGINES))
        model = models[e]
        for one in models.values():
            one.pace = 0.1
        waits = rng.random() < 0.3
        for _ in range(rng.randrange(1, 4)):
            words = [rng.getrandbits(32) for _ in range(WORDS)]
            words[0] &= 0xFFFF000F
            if waits:
                words[0] |= 0x3F0 & ~(1 << 4 + e)
            await writer.words([e], words)
        found, history = await look_up(dut, model, e, 30 + rng.randrange(60))
        past = history[-blame_delay(CONFIG) + 1]
        if past is not None:
            assert found == past, (turn, e.name)
        elif model.expected and waits:
            assert found == number(model.expected[0]), (turn, e.name)
        await restart(dut)
        model.tokens.count.clear()
        await settled(dut)
