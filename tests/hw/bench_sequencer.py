"""Random programs through the whole control path, with engines that only take their time."""

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start, wait_until

from gateformer.hw.dispatcher import legal_opcodes, size_limits
from gateformer.hw.interfaces import instruction_bits
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import (
    FORMATS,
    SAMPLE_BITS,
    SYNC_ENGINES,
    WORDS,
    Engine,
    Format,
    Instruction,
    Opcode,
    instruction,
    semaphore_exists,
)
from gateformer.spec.registers import ErrorCode

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))


def clipped(one: Instruction, word: int, limit: int) -> Instruction:
    values = dict(one.values)
    for field in FORMATS[one.opcode].fields:
        if field.word == word and field.low == 0 and field.name in values:
            values[field.name] = min(values[field.name], limit)
    return Instruction(one.opcode, values)


def random_instruction(rng: random.Random, opcodes: list[Opcode]) -> Instruction:
    """Random legal fields, no tokens."""
    opcode = rng.choice(opcodes)
    values = {
        f.name: rng.choice((0, f.mask, rng.getrandbits(f.width), rng.getrandbits(f.width)))
        for f in FORMATS[opcode].fields
        if f.name != "opcode"
    }
    values["sample"] %= CONFIG.samples
    for name in values:
        if name.endswith(("wait", "signal")):
            values[name] = 0
    if opcode == Opcode.GEMM:
        values["format"] = rng.choice(list(Format))
        values["residual"] &= values["format"] == Format.INT16
        values["activation"] &= values["format"] == Format.INT8
    one = Instruction(opcode, values)
    for (number, word), limit in size_limits(CONFIG).items():
        if number == opcode:
            one = clipped(one, word, limit)
    return one


def add_tokens(rng: random.Random, program: list[Instruction]) -> list[Instruction]:
    """Masks such that a program in order never waits in vain: a token is awaited after its signal,
    and no counter holds more than 12."""
    counts: dict[tuple[Engine, Engine], int] = {}
    result = []
    for one in program:
        values = dict(one.values)
        roles = [("", e) for e in FORMATS[one.opcode].engines[:1]]
        if one.opcode == Opcode.GEMM:
            roles.append(("epilogue_", Engine.EPILOGUE))
        for prefix, e in roles:
            for other in SYNC_ENGINES:
                if rng.random() < 0.6 and counts.get((other, e), 0):
                    counts[other, e] -= 1
                    values[f"{prefix}wait"] |= 1 << other
        for prefix, e in roles:
            for other in SYNC_ENGINES:
                full = counts.get((e, other), 0) >= 12
                if rng.random() < 0.4 and semaphore_exists(e, other) and not full:
                    counts[e, other] = counts.get((e, other), 0) + 1
                    values[f"{prefix}signal"] |= 1 << other
        result.append(Instruction(one.opcode, values))
    return result


def payload(one: Instruction, engine: Engine) -> int:
    """The 256 bits that an engine gets."""
    return int.from_bytes(one.encode().tobytes(), "little") & instruction_bits(engine)


class Bench:
    """Memory, engines and host around the control path."""

    def __init__(self, dut: Any, rng: random.Random, pace: float) -> None:
        self.dut, self.rng, self.pace = dut, rng, pace
        self.memory = bytearray(1 << 16)
        self.started: dict[Engine, list[tuple[int, int]]] = {e: [] for e in Engine}
        self.events: list[tuple[str, Engine, int]] = []
        self.memory_alive = True
        self.stuck: set[Engine] = set()
        self.bursts: list[tuple[int, int]] = []
        self.flushes = 0
        self.latencies: dict[Engine, list[int]] = {e: [] for e in Engine}
        for name in (
            "start",
            "stop",
            "write",
            "local_error",
            "local_engine",
            "dma_error",
            "progress",
        ):
            getattr(dut, name).value = 0
        dut.dma_quiet.value = 1
        dut.dram_read__burst__ready.value = 0
        dut.dram_read__data__valid.value = 0
        cocotb.start_soon(self._dram())
        for e in Engine:
            cocotb.start_soon(self._engine(e))

    async def _dram(self) -> None:
        dut, rng, size = self.dut, self.rng, CONFIG.bus_bytes
        beats: list[int] = []
        ready = valid = False
        while True:
            await FallingEdge(dut.clk)
            ready = self.memory_alive and rng.random() < 0.5
            valid = bool(beats) and (valid or rng.random() < 0.7) and self.memory_alive
            dut.dram_read__burst__ready.value = int(ready)
            dut.dram_read__data__valid.value = int(valid)
            dut.dram_read__data__payload.value = beats[0] if valid else rng.getrandbits(8 * size)
            await ReadOnly()
            if int(dut.flush.value):
                self.flushes += 1
                if int(dut.running.value):
                    self._forget()
            if valid and int(dut.dram_read__data__ready.value):
                beats.pop(0)
                valid = False
            if ready and int(dut.dram_read__burst__valid.value):
                value = int(dut.dram_read__burst__payload.value)
                address, count = value & 0xFFFFFFFF, value >> 32
                last = address + count * size - 1
                assert address // CONFIG.burst_bytes == last // CONFIG.burst_bytes
                assert 0 < count <= CONFIG.burst_bytes // size
                self.bursts.append((address, count * size))
                for i in range(count):
                    place = address + i * size
                    beats.append(int.from_bytes(self.memory[place : place + size], "little"))

    async def _engine(self, e: Engine) -> None:
        dut, rng = self.dut, self.rng
        prefix = f"{e.name.lower()}__stream__"
        valid, ready, data = (getattr(dut, prefix + name) for name in ("valid", "ready", "payload"))
        pc = getattr(dut, f"pc__{e.value}")
        ready.value = 0
        busy: tuple[int, int] | None = None
        idle = 0
        while True:
            await FallingEdge(dut.clk)
            finish = busy is not None and e not in self.stuck and rng.random() < self.pace
            ready.value = int(finish)
            await ReadOnly()
            if int(dut.flush.value):
                busy, idle = None, 0
                continue
            if not int(valid.value):
                assert busy is None, f"{e.name}: valid withdrawn"
                idle += 1
                continue
            now = (int(pc.value), int(data.value))
            if busy is None:
                self.started[e].append(now)
                self.events.append(("start", e, now[0]))
                self.latencies[e].append(idle)
            else:
                assert now == busy, f"{e.name}: the payload changed"
            busy, idle = now, 0
            if finish:
                self.events.append(("end", e, now[0]))
                busy = None

    def place(self, program: list[Instruction], *, base: int, offset: int) -> None:
        """Writes the words to DRAM and points the registers there."""
        data = b"".join(one.encode().tobytes() for one in program)
        self.memory[base + offset : base + offset + len(data)] = data
        self.dut.window_base.value = base
        self.dut.program.value = offset
        self.dut.window_size.value = offset + len(data)
        self.base, self.size = base, offset + len(data)

    async def set_lengths(self, lengths: list[int]) -> None:
        """Writes the runtime length of every sample."""
        for sample, length in enumerate(lengths):
            self.dut.sample.value, self.dut.length.value = sample, length
            await self.pulse("write")

    async def run(self, *, limit: int = 200_000) -> None:
        """Starts and waits for the end."""
        await self.pulse("start")
        await wait_until(self.dut, lambda: not int(self.dut.running.value), limit)

    def _forget(self) -> None:
        """What a program did before the flush of the next start is of no interest any more."""
        for e in Engine:
            self.started[e].clear()
            self.latencies[e].clear()
        self.events.clear()
        self.bursts.clear()

    async def pulse(self, name: str) -> None:
        getattr(self.dut, name).value = 1
        await FallingEdge(self.dut.clk)
        getattr(self.dut, name).value = 0

    def check_done(self, program: list[Instruction], lengths: list[int]) -> None:
        """Done, and every engine saw its instructions in order, once, cut to its length."""
        assert int(self.dut.done.value) and not int(self.dut.error.value)
        for e in Engine:
            expected = [
                (32 * i, payload(one.at_length(lengths), e))
                for i, one in enumerate(program)
                if e in FORMATS[one.opcode].engines
            ]
            assert self.started[e] == expected, e.name
        for address, size in self.bursts:
            assert self.base <= address and address + size <= self.base + self.size

    def check_order(self, program: list[Instruction]) -> None:
        """No instruction started without the tokens it waits for."""
        counts = {(p, c): 0 for p in SYNC_ENGINES for c in SYNC_ENGINES}
        for kind, e, pc in self.events:
            one = program[pc // 32]
            prefix = "epilogue_" if e == Engine.EPILOGUE and one.opcode == Opcode.GEMM else ""
            if e not in SYNC_ENGINES:
                continue
            for other in SYNC_ENGINES:
                if kind == "start" and one[f"{prefix}wait"] >> other & 1:
                    counts[other, e] -= 1
                    assert counts[other, e] >= 0, (e, pc)
                if kind == "end" and one[f"{prefix}signal"] >> other & 1:
                    counts[e, other] += 1

    def check_error(self, code: ErrorCode, engine: int, pc: int) -> None:
        seen = (int(self.dut.code.value), int(self.dut.engine.value), int(self.dut.error_pc.value))
        assert int(self.dut.error.value) and not int(self.dut.done.value)
        assert seen == (code, engine, pc), seen


HALT = instruction(Opcode.HALT)
ONE_HUNDRED = [100] * CONFIG.samples
LEGAL = list(legal_opcodes(CONFIG))


async def recovered(bench: Bench) -> None:
    """A next program runs as if nothing had happened."""
    rng = bench.rng
    bench.memory_alive = True
    bench.stuck.clear()
    program = add_tokens(rng, [random_instruction(rng, LEGAL) for _ in range(12)])
    bench.place([*program, HALT], base=0x400, offset=0x20)
    await bench.set_lengths(ONE_HUNDRED)
    await bench.run()
    bench.check_done(program, ONE_HUNDRED)


@cocotb.test()
async def random_programs(dut: Any) -> None:
    """Fast and slow engines, full and empty queues, any length: all arrives in order."""
    rng = make_rng(11)
    bench = Bench(dut, rng, 0.1)
    await start(dut)
    for pace in (1.0, 0.2, 0.05, 0.01):
        bench.pace = pace
        program = [random_instruction(rng, LEGAL) for _ in range(120 if pace > 0.01 else 30)]
        program = add_tokens(rng, program)
        bench.place(
            [*program, HALT], base=0x400 + 64 * rng.randrange(9), offset=64 * rng.randrange(3)
        )
        lengths = [rng.randrange(4096) for _ in range(CONFIG.samples)]
        await bench.set_lengths(lengths)
        await bench.run()
        bench.check_done(program, lengths)
        bench.check_order(program)


@cocotb.test()
async def one_engine_in_a_row(dut: Any) -> None:
    """GEMMs reach the array without a gap between them once they are queued."""
    rng = make_rng(12)
    bench = Bench(dut, rng, 0.002)
    await start(dut)
    program = [random_instruction(rng, [Opcode.GEMM]) for _ in range(10)]
    bench.place([*program, HALT], base=0, offset=0)
    await bench.set_lengths(ONE_HUNDRED)
    await bench.run()
    bench.check_done(program, ONE_HUNDRED)
    # Some are done before the next one is dispatched.
    assert sorted(bench.latencies[Engine.ARRAY])[:4] == [0] * 4, bench.latencies


@cocotb.test()
async def dynamic_sizes(dut: Any) -> None:
    """All combinations of a size, an offset and a length around their meeting points."""
    rng = make_rng(13)
    bench = Bench(dut, rng, 1.0)
    await start(dut)
    for length in (0, 1, 99, 100, 101, 4095):
        program = []
        for offset in (0, 1, 50, 99, 100, 101, 4095):
            for size in (0, 1, 50, 100, 4095):
                sizes = {"m": size, "n": rng.randrange(4096), "k": rng.randrange(100)}
                values = {}
                for name, value in sizes.items():
                    values[name] = value
                    values[f"{name}_offset"] = offset
                    values[f"{name}_dynamic"] = rng.randrange(2) if name != "m" else 1
                program.append(instruction(Opcode.GEMM, **values))
        bench.place([*program, HALT], base=0x800, offset=0)
        lengths = [length] * CONFIG.samples
        await bench.set_lengths(lengths)
        await bench.run()
        bench.check_done(program, lengths)


def illegal_instructions() -> list[tuple[str, np.ndarray]]:
    """One of each kind of what the sequencer refuses, and what it is called."""
    cases = []
    for number in range(16):
        if number and number not in LEGAL:
            words = np.zeros(WORDS, "<u4")
            words[0] = number
            cases.append((f"opcode {number}", words))
    for (opcode, word), limit in size_limits(CONFIG).items():
        words = instruction(opcode).encode()
        words[word] = limit + 1
        cases.append((f"{opcode.name} size {limit + 1}", words))
    for values in (
        {"format": 3},
        {"format": Format.INT8, "residual": 1},
        {"format": Format.INT32, "residual": 1},
        {"format": Format.INT16, "activation": 1},
        {"format": Format.INT32, "activation": 1},
    ):
        cases.append((f"GEMM {values}", instruction(Opcode.GEMM, **values).encode()))
    for sample in range(CONFIG.samples, 1 << SAMPLE_BITS):
        cases.append((f"sample {sample}", instruction(Opcode.NORM, sample=sample).encode()))
    return cases


@cocotb.test()
async def illegal(dut: Any) -> None:
    """Each illegal instruction gives its code and address, reaches no engine; the next runs."""
    rng = make_rng(14)
    bench = Bench(dut, rng, 0.3)
    await start(dut)
    for name, words in illegal_instructions():
        count = rng.randrange(6)
        program = [random_instruction(rng, LEGAL) for _ in range(count)]
        bench.place([*program, HALT, HALT], base=0x800, offset=0)
        place = 0x800 + 32 * count
        bench.memory[place : place + 32] = words.tobytes()
        flushes = bench.flushes
        await bench.run()
        bench.check_error(ErrorCode.ILLEGAL_INSTRUCTION, 0, 32 * count)
        assert all(pc < 32 * count for _, _, pc in bench.events), name
        await wait_until(dut, lambda before=flushes: bench.flushes == before + 2)
        if rng.random() < 0.4:
            await bench.pulse("stop")
            assert not int(dut.error.value)
        await recovered(bench)


@cocotb.test()
async def largest_sizes(dut: Any) -> None:
    """A size at its limit is legal, and one that the length cuts down to the limit."""
    bench = Bench(dut, make_rng(15), 0.5)
    await start(dut)
    program = []
    for (opcode, word), limit in size_limits(CONFIG).items():
        name = next(
            f.name
            for f in FORMATS[opcode].fields
            if f.word == word and f.low == 0 and f.width == 12
        )
        program.append(instruction(opcode, **{name: limit}))
        dynamic = {name: 4095, f"{name}_offset": 4000 - limit, f"{name}_dynamic": 1}
        program.append(instruction(opcode, **dynamic))
    bench.place([*program, HALT], base=0, offset=0)
    lengths = [4000] * CONFIG.samples
    await bench.set_lengths(lengths)
    await bench.run()
    bench.check_done(program, lengths)


@cocotb.test()
async def window(dut: Any) -> None:
    """A program that runs out of its window stops there; one that ends with it is done."""
    rng = make_rng(16)
    bench = Bench(dut, rng, 0.3)
    await start(dut)
    for count in (0, 1, 3, 4, 5, 9):
        program = [random_instruction(rng, LEGAL) for _ in range(count)]
        bench.place(program, base=0x460, offset=0x20)
        bench.memory[0x460 + bench.size :] = bytes(len(bench.memory) - 0x460 - bench.size)
        await bench.run()
        bench.check_error(ErrorCode.DRAM_ADDRESS, 0, 32 * count)
        assert sum(size for _, size in bench.bursts) == 32 * count
        await recovered(bench)


@cocotb.test()
async def engine_errors(dut: Any) -> None:
    """Errors of local memory and DMA carry the address of the engine's instruction."""
    rng = make_rng(17)
    bench = Bench(dut, rng, 0.02)
    await start(dut)
    for _ in range(12):
        program = [random_instruction(rng, [opcode]) for opcode in 3 * LEGAL]
        rng.shuffle(program)
        bench.place([*program, HALT], base=0x800, offset=0)
        engine = rng.choice(SYNC_ENGINES)
        bench.started[engine].clear()
        await bench.pulse("start")
        await FallingEdge(dut.clk)
        await wait_until(dut, lambda which=engine: len(bench.started[which]) >= 2, 20_000)
        bench.pace = 0.0
        for _ in range(20):
            await FallingEdge(dut.clk)
        pc = bench.started[engine][-1][0]
        dut.dma_quiet.value = 0
        if engine == Engine.DMA and rng.random() < 0.5:
            await bench.pulse("dma_error")
            code = ErrorCode.DRAM_ADDRESS
        else:
            dut.local_engine.value = int(engine)
            await bench.pulse("local_error")
            code = ErrorCode.LOCAL_ADDRESS
        await wait_until(dut, lambda: not int(dut.running.value), 60)
        bench.check_error(code, engine, pc)
        flushes = bench.flushes
        for _ in range(50):
            assert int(dut.abort.value) and bench.flushes == flushes
            await FallingEdge(dut.clk)
        dut.dma_quiet.value = 1
        bench.pace = 0.02
        await recovered(bench)


@cocotb.test()
async def watchdog(dut: Any) -> None:
    """A wait in vain, a stuck engine and a dead memory: each is found and named."""
    rng = make_rng(18)
    bench = Bench(dut, rng, 0.3)
    await start(dut)
    vector = instruction(Opcode.SOFTMAX, rows=1)
    waits = instruction(Opcode.SOFTMAX, wait=1 << Engine.EPILOGUE)
    gemm = instruction(Opcode.GEMM)
    bench.place([gemm, vector, waits, gemm, HALT], base=0, offset=0)
    await bench.run()
    bench.check_error(ErrorCode.WATCHDOG, Engine.VECTOR, 64)
    await recovered(bench)

    bench.stuck = {Engine.EPILOGUE, Engine.ARRAY}
    bench.place([vector, gemm, HALT], base=0, offset=0)
    dut.progress.value = 1
    await bench.pulse("start")
    for _ in range(2 * CONFIG.watchdog_cycles):
        await FallingEdge(dut.clk)
    assert int(dut.running.value)
    dut.progress.value = 0
    cycles = await wait_until(dut, lambda: not int(dut.running.value))
    assert 0 <= cycles - CONFIG.watchdog_cycles <= 44
    bench.check_error(ErrorCode.WATCHDOG, Engine.EPILOGUE, 32)
    await recovered(bench)

    bench.memory_alive = False
    bench.place([vector, HALT], base=0, offset=0)
    await bench.run()
    bench.check_error(ErrorCode.WATCHDOG, 0, 0)
    # The burst never ends, so a new start waits, and is watched as well.
    await bench.run()
    bench.check_error(ErrorCode.WATCHDOG, 0, 0)
    await recovered(bench)


@cocotb.test()
async def stop(dut: Any) -> None:
    """The host stops a program at any time; stop and start without a program do as they should."""
    rng = make_rng(19)
    bench = Bench(dut, rng, 0.05)
    await start(dut)
    for delay in (0, 1, 2, 3, 4, *(rng.randrange(5, 600) for _ in range(8))):
        program = [random_instruction(rng, LEGAL) for _ in range(40)]
        bench.place([*program, HALT], base=0x800, offset=0)
        await bench.pulse("start")
        for _ in range(delay):
            await FallingEdge(dut.clk)
        assert int(dut.running.value)
        await bench.pulse("stop")
        await FallingEdge(dut.clk)
        assert int(dut.error.value) and int(dut.code.value) == ErrorCode.STOPPED
        assert not int(dut.running.value)
        for _ in range(rng.randrange(3)):
            await FallingEdge(dut.clk)
        await recovered(bench)
    await bench.pulse("stop")
    assert int(dut.done.value) and not int(dut.error.value)
