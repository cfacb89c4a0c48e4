"""Short programs through the host's registers and external memory."""

import json
import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import ExternalMemoryModel, StreamSink, StreamSource, make_rng, start, wait_until

from gateformer.spec.arithmetic import pack_scale_records
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Instruction, Opcode, instruction
from gateformer.spec.registers import IDENTITY, Counter, ErrorCode, Register

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
WORD = CONFIG.word_bytes
BASE, PROGRAM, SIZE = 0x1000, 0x2000, 0x4000
M, N, K = 10, 6, 40
STRIDE = K // WORD
"""Words in a row of A and of B; a row of the int32 output has N // 2 for words of 8 bytes."""
OUT_STRIDE = -(-4 * N // WORD)
A, B, P, OUT = 0, 100, 200, 300
A_DRAM, B_DRAM, P_DRAM, OUT_DRAM = 0x000, 0x400, 0x600, 0x800


def mask(*engines: Engine) -> int:
    return sum(1 << engine for engine in engines)


def product() -> list[Instruction]:
    """OUT = A B^T + bias as int32, every step waiting for the one before."""

    def move(opcode: Opcode, rows: int, words: int, local: int, dram: int, **more: int) -> Any:
        return instruction(
            opcode,
            rows=rows,
            words=words,
            local_address=local,
            local_stride=words,
            dram_address=dram,
            dram_stride=words * WORD,
            **more,
        )

    return [
        move(Opcode.DMA_LOAD, N, STRIDE, B, B_DRAM, signal=mask(Engine.LOAD_B)),
        instruction(Opcode.LOAD_B, n=N, k=K, b_address=B, b_stride=STRIDE, wait=mask(Engine.DMA)),
        move(Opcode.DMA_LOAD, 1, N * 8 // WORD, P, P_DRAM, signal=mask(Engine.LOAD_P)),
        instruction(Opcode.LOAD_P, count=N, p_address=P, wait=mask(Engine.DMA)),
        move(Opcode.DMA_LOAD, M, STRIDE, A, A_DRAM, signal=mask(Engine.LOAD_A)),
        instruction(
            Opcode.GEMM,
            m=M,
            n=N,
            k=K,
            m_dynamic=1,
            format=Format.INT32,
            release_b=1,
            release_p=1,
            a_address=A,
            a_stride=STRIDE,
            out_address=OUT,
            out_stride=OUT_STRIDE,
            wait=mask(Engine.DMA),
            epilogue_signal=mask(Engine.DMA),
        ),
        move(Opcode.DMA_STORE, M, OUT_STRIDE, OUT, OUT_DRAM, wait=mask(Engine.EPILOGUE)),
    ]


class Bench:
    def __init__(self, dut: Any, seed: int, gap: float) -> None:
        self.rng = make_rng(seed)
        self.dut = dut
        dut.stall.value = 0
        self.requests = StreamSource(dut, "registers__request", self.rng)
        self.responses = StreamSink(dut, "registers__response", self.rng)
        self.data = bytearray(1 << 16)
        self.dram = ExternalMemoryModel(
            dut,
            data=self.data,
            bus_bytes=CONFIG.bus_bytes,
            burst_bytes=CONFIG.burst_bytes,
            rng=self.rng,
            gap=gap,
        )
        self.retired: list[tuple[str, int]] = []
        cocotb.start_soon(self._watch(gap))

    async def _watch(self, gap: float) -> None:
        names = ("epilogue", "vector", "dma")
        while True:
            await FallingEdge(self.dut.clk)
            self.dut.stall.value = sum((self.rng.random() < gap) << i for i in range(2))
            await ReadOnly()
            for name in names:
                if int(getattr(self.dut, f"trace_{name}__retire").value):
                    pc = int(getattr(self.dut, f"trace_{name}__pc").value)
                    self.retired.append((name, pc // 32))

    async def write(self, register: Register, value: int) -> None:
        self.requests.queue.append(register | 1 << 6 | value << 7)
        await wait_until(self.dut, lambda: self.requests.idle)

    async def read(self, register: Register) -> int:
        self.responses.received.clear()
        self.requests.queue.append(int(register))
        await wait_until(self.dut, lambda: bool(self.responses.received))
        return self.responses.received[0]

    def fill(self) -> np.ndarray:
        """New operands in DRAM; returns the output that is due."""
        rng = np.random.default_rng(self.rng.getrandbits(32))
        a = rng.integers(-128, 128, (M, K), np.int8)
        b = rng.integers(-128, 128, (N, K), np.int8)
        bias = rng.integers(-(1 << 30), 1 << 30, N)
        for offset, part in (
            (A_DRAM, a.tobytes()),
            (B_DRAM, b.tobytes()),
            (P_DRAM, pack_scale_records(bias, 0, 0).tobytes()),
        ):
            self.data[BASE + offset : BASE + offset + len(part)] = part
        return a.astype(np.int64) @ b.T.astype(np.int64) + bias

    def result(self) -> np.ndarray:
        start = BASE + OUT_DRAM
        rows = np.frombuffer(self.data[start : start + M * OUT_STRIDE * WORD], "<i4")
        return rows.reshape(M, -1)[:, :N]

    async def run(self, program: list[Instruction], length: int = 4095) -> int:
        """Runs the program and HALT; returns STATUS at its end."""
        words = b"".join(one.encode().tobytes() for one in [*program, instruction(Opcode.HALT)])
        self.data[BASE + PROGRAM : BASE + PROGRAM + len(words)] = words
        self.retired.clear()
        await self.write(Register.PROGRAM, PROGRAM)
        await self.write(Register.LENGTH, length)
        await self.write(Register.WINDOW_BASE, BASE)
        await self.write(Register.WINDOW_SIZE, SIZE)
        await self.write(Register.CONTROL, 1)
        for _ in range(10_000):
            status = await self.read(Register.STATUS)
            if not status & 1:
                return status
        raise AssertionError("the program does not end")

    async def counter(self, counter: Counter) -> int:
        await self.write(Register.COUNTER_SELECT, counter)
        return await self.read(Register.COUNTER)


DONE = 2


@cocotb.test()
async def products(dut: Any) -> None:
    """The same program at full length and shortened, and what the counters say of it."""
    bench = Bench(dut, 31, 0.0)
    await start(dut)
    assert await bench.read(Register.IDENTITY) == IDENTITY
    assert await bench.read(Register.CONFIG_HASH) == CONFIG.hash
    for length in (4095, M, 3, 1, 0):
        due = bench.fill()
        before = bench.result().copy()
        read, written = bench.dram.beats_read, bench.dram.beats_written
        # What an earlier run left in local memory is stored again, so rows stay as they were.
        assert await bench.run(product(), length) == DONE
        rows = min(M, length)
        assert np.array_equal(bench.result()[:rows], due[:rows])
        if length < M:
            assert np.array_equal(bench.result()[rows:], before[rows:])
        assert sorted(bench.retired) == [*(("dma", i) for i in (0, 2, 4, 6)), ("epilogue", 5)]
        cycles = await bench.read(Register.CYCLES)
        assert cycles > 0
        if not CONFIG.counters:
            assert not any([await bench.counter(counter) for counter in Counter])
            continue
        assert await bench.counter(Counter.DRAM_WRITE) == bench.dram.beats_written - written
        moved = bench.dram.beats_read - read
        # The fetch reads on behind HALT, and that is not counted any more.
        counted = await bench.counter(Counter.DRAM_READ)
        assert moved - 2 * 128 // CONFIG.bus_bytes <= counted <= moved
        steps = -(-rows // CONFIG.rows) * -(-N // CONFIG.cols) * -(-K // CONFIG.lanes)
        assert await bench.counter(Counter.ARRAY_BUSY) == steps
        for counter in Counter:
            assert await bench.counter(counter) <= cycles


@cocotb.test()
async def products_with_stalls(dut: Any) -> None:
    """Stalled memories change the cycles and nothing else."""
    bench = Bench(dut, 32, 0.6)
    await start(dut)
    for length in (4095, M - 1):
        due = bench.fill()
        assert await bench.run(product(), length) == DONE
        assert np.array_equal(bench.result()[:length], due[:length])


@cocotb.test()
async def errors(dut: Any) -> None:
    """Each kind of error names engine and instruction; the next program runs."""
    bench = Bench(dut, 33, 0.2)
    await start(dut)
    rows = product()
    bad = {
        "local read": (
            instruction(Opcode.LOAD_B, n=2, k=8, b_address=0xFFFF),
            (ErrorCode.LOCAL_ADDRESS, Engine.LOAD_B),
        ),
        "local write": (
            instruction(Opcode.DMA_LOAD, rows=1, words=2, local_address=CONFIG.local_words - 1),
            (ErrorCode.LOCAL_ADDRESS, Engine.DMA),
        ),
        "window": (
            instruction(
                Opcode.DMA_LOAD, rows=2, words=1, dram_address=SIZE - WORD, dram_stride=WORD
            ),
            (ErrorCode.DRAM_ADDRESS, Engine.DMA),
        ),
        "token": (
            instruction(Opcode.DMA_LOAD, wait=mask(Engine.VECTOR)),
            (ErrorCode.WATCHDOG, Engine.DMA),
        ),
        "format": (instruction(Opcode.GEMM, format=3), (ErrorCode.ILLEGAL_INSTRUCTION, 0)),
    }
    if CONFIG.local_words == 1 << 16:
        del bad["local read"], bad["local write"]
    for name, (one, (code, engine)) in bad.items():
        status = await bench.run([*rows, one, *rows])
        assert status == 4 | code << 4 | engine << 8, (name, status)
        assert await bench.read(Register.ERROR_PC) == 32 * len(rows), name
        due = bench.fill()
        assert await bench.run(product()) == DONE, name
        assert np.array_equal(bench.result(), due), name
