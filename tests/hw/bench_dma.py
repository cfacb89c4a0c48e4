"""The DMA engine between models of local and external memory."""

import itertools
import json
import os
import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import (
    ExternalMemoryModel,
    LocalMemoryModel,
    make_rng,
    read_latency,
    start,
    wait_until,
)

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
W = CONFIG.word_bytes
BUS = CONFIG.bus_bytes
STORES = CONFIG.dram == "readwrite"
LOCAL_WORDS = 2048
DRAM_BYTES = 1 << 16
BASE = 0x1000 + 3 * W
SIZE = 0xC000
BEATS = CONFIG.burst_bytes // BUS
OPCODES = [Opcode.DMA_LOAD, Opcode.DMA_STORE] if STORES else [Opcode.DMA_LOAD]


class Bench:
    """The engine, both memories, and what an instruction must do to them."""

    def __init__(self, dut: Any, rng: random.Random, latency: int, gap: float) -> None:
        self.dut, self.rng = dut, rng
        self.local = LocalMemoryModel(
            dut,
            words=[rng.getrandbits(8 * W) for _ in range(LOCAL_WORDS)],
            word_bytes=W,
            rng=rng,
            reads=("read",) if STORES else (),
            writes=("write",),
            gap=gap,
            late=True,
        )
        self.dram = ExternalMemoryModel(
            dut,
            data=bytearray(rng.randbytes(DRAM_BYTES)),
            bus_bytes=BUS,
            burst_bytes=CONFIG.burst_bytes,
            rng=rng,
            write="dram_write" if STORES else None,
            latency=latency,
            gap=gap,
        )
        dut.window_base.value = BASE
        dut.window_size.value = SIZE
        dut.abort.value = 0
        dut.instructions__stream__valid.value = 0
        self.errors = 0
        cocotb.start_soon(self._count_errors())

    async def _count_errors(self) -> None:
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            self.errors += int(self.dut.error.value)

    def offer(self, opcode: Opcode, **fields: int) -> None:
        words = instruction(opcode, **fields).encode()
        self.dut.instructions__stream__payload.value = int.from_bytes(words.tobytes(), "little")
        self.dut.instructions__stream__valid.value = 1

    async def done(self, limit: int = 100_000) -> int:
        """Waits for the completion of the offered instruction; returns the cycles it took."""
        for cycle in range(limit):
            await ReadOnly()
            ready = int(self.dut.instructions__stream__ready.value)
            await FallingEdge(self.dut.clk)
            if ready:
                self.dut.instructions__stream__valid.value = 0
                return cycle + 1
        raise AssertionError("the instruction does not end")

    async def reset(self) -> None:
        """Resets for long enough that no response to an earlier read is left."""
        self.dut.instructions__stream__valid.value = 0
        self.dut.abort.value = 0
        self.dut.rst.value = 1
        for _ in range(read_latency() + 1):
            await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await FallingEdge(self.dut.clk)

    def expect(self, opcode: Opcode, rows: int, f: dict[str, int]) -> list[tuple[int, int]]:
        """Applies the first `rows` rows to copies of the memories; returns the bursts."""
        bursts: list[tuple[int, int]] = []
        self.words, self.bytes = list(self.local.words), bytearray(self.dram.data)
        for r in range(rows):
            at = BASE + f["dram_address"] + r * f["dram_stride"]
            word = f["local_address"] + r * f["local_stride"]
            for i in range(f["words"]):
                place = slice(at + i * W, at + (i + 1) * W)
                if opcode == Opcode.DMA_LOAD:
                    self.words[word + i] = int.from_bytes(self.bytes[place], "little")
                else:
                    self.bytes[place] = self.words[word + i].to_bytes(W, "little")
            end = at + f["words"] * W
            while at < end:
                stop = min(end, (at // CONFIG.burst_bytes + 1) * CONFIG.burst_bytes)
                bursts.append((at, (stop - at) // BUS))
                at = stop
        return bursts

    def random_block(self, most: int = 300) -> dict[str, int]:
        rng = self.rng
        rows = rng.choice((1, 1, 2, 5, rng.randrange(1, 20)))
        words = rng.choice((1, 2, 3, 8, rng.randrange(1, 2 * CONFIG.burst_bytes // W + 3), 100))
        words = min(words, max(most // rows, 1))
        local_stride = words + rng.choice((0, 0, 1, rng.randrange(20)))
        dram_stride = W * (words + rng.choice((0, 0, 1, rng.randrange(40))))
        span = (rows - 1) * dram_stride + words * W
        return {
            "rows": rows,
            "words": words,
            "local_address": rng.randrange(LOCAL_WORDS - (rows - 1) * local_stride - words + 1),
            "local_stride": local_stride,
            "dram_address": rng.choice((0, SIZE - span, rng.randrange(0, SIZE - span + 1, W))),
            "dram_stride": dram_stride,
        }


async def random_blocks(dut: Any, seed: int, count: int, gap: float, latency: int) -> None:
    rng = make_rng(seed)
    bench = Bench(dut, rng, latency, gap)
    await start(dut)
    for _ in range(count):
        opcode = rng.choice(OPCODES)
        fields = bench.random_block()
        bursts = bench.expect(opcode, fields["rows"], fields)
        bench.dram.read_bursts.clear()
        bench.dram.write_bursts.clear()
        bench.offer(opcode, **fields)
        await bench.done()
        assert bench.local.words == bench.words, (opcode.name, fields)
        assert bench.dram.data == bench.bytes, (opcode.name, fields)
        made = (bench.dram.read_bursts, bench.dram.write_bursts)
        assert made == ((bursts, []) if opcode == Opcode.DMA_LOAD else ([], bursts)), fields
        assert not bench.dram.outstanding
        await ReadOnly()
        assert int(dut.quiet.value)
        await FallingEdge(dut.clk)
        for _ in range(rng.randrange(3)):
            await FallingEdge(dut.clk)
    assert bench.errors == 0


@cocotb.test()
async def blocks(dut: Any) -> None:
    """Random blocks without stalls."""
    await random_blocks(dut, 40, 25, gap=0.0, latency=10)


@cocotb.test()
async def blocks_with_stalls(dut: Any) -> None:
    """Random blocks with every handshake refused at random."""
    await random_blocks(dut, 41, 20, gap=0.4, latency=5)


@cocotb.test()
async def rare_stalls(dut: Any) -> None:
    await random_blocks(dut, 42, 20, gap=0.05, latency=20)


@cocotb.test()
async def empty(dut: Any) -> None:
    """A size of 0 does nothing and completes."""
    rng = make_rng(43)
    bench = Bench(dut, rng, 5, 0.0)
    await start(dut)
    for opcode in OPCODES:
        for fields in ({"rows": 0, "words": 3}, {"rows": 2, "words": 0}):
            bench.offer(opcode, **fields)
            assert await bench.done() <= 5
    assert not bench.dram.read_bursts and not bench.dram.write_bursts and not bench.local.asked


@cocotb.test()
async def outside_the_window(dut: Any) -> None:
    """The rows before the first bad one are moved, then comes one error, and no completion."""
    rng = make_rng(44)
    bench = Bench(dut, rng, 5, 0.2)
    await start(dut)
    # (rows that are moved, rows, first byte, bytes from row to row), rows of 4 words.
    cases = [
        (0, 1, SIZE - 3 * W, 0),
        (0, 1, SIZE, 0),
        (0, 1, 0xFFFFFFFF & -W, 0),
        (1, 3, SIZE - 4 * W, W),
        (2, 3, SIZE - 6 * W, 2 * W),
        (1, 3, 8 * W, (1 << 32) - W),
        (1, 2, 8 * W, 4 * W + 1),
        (0, 1, 8 * W + 2, 4 * W),
    ]
    for opcode, (good, rows, address, stride) in itertools.product(OPCODES, cases):
        fields = {"local_address": 0, "local_stride": 4, "words": 4, "rows": rows}
        fields |= {"dram_address": address, "dram_stride": stride}
        bursts = bench.expect(opcode, good, fields)
        bench.dram.read_bursts.clear()
        bench.dram.write_bursts.clear()
        before = bench.errors
        bench.offer(opcode, **fields)
        for _ in range(400):
            await ReadOnly()
            assert not int(dut.instructions__stream__ready.value)
            await FallingEdge(dut.clk)
        assert bench.errors == before + 1, fields
        assert bench.dram.read_bursts + bench.dram.write_bursts == bursts, fields
        assert bench.local.words == bench.words
        assert bench.dram.data == bench.bytes
        assert int(dut.quiet.value) and not int(dut.busy.value)
        await bench.reset()


@cocotb.test()
async def abort(dut: Any) -> None:
    """After an abort no burst begins, the open ones end, and the engine falls quiet."""
    rng = make_rng(45)
    bench = Bench(dut, rng, 8, 0.2)
    await start(dut)
    for _ in range(16):
        opcode = rng.choice(OPCODES)
        block = {"local_address": 0, "local_stride": 90, "dram_stride": 90 * W}
        bench.offer(opcode, rows=3, words=90, **block)
        for _ in range(rng.randrange(3, 300)):
            await FallingEdge(dut.clk)
        dut.abort.value = 1
        await ReadOnly()
        standing = any(
            int(getattr(dut, f"{port}__burst__valid").value)
            for port in ("dram_read", "dram_write")[: 1 + STORES]
        )
        bursts = len(bench.dram.read_bursts) + len(bench.dram.write_bursts)
        await FallingEdge(dut.clk)
        await wait_until(dut, lambda: bool(int(dut.quiet.value)), 5000)
        assert not bench.dram.outstanding
        for _ in range(30):
            await FallingEdge(dut.clk)
            assert int(dut.quiet.value)
        begun = len(bench.dram.read_bursts) + len(bench.dram.write_bursts) - bursts
        assert begun <= standing
        await bench.reset()
        # The engine works again, with nothing left over.
        fields = bench.random_block()
        bench.expect(opcode, fields["rows"], fields)
        bench.offer(opcode, **fields)
        await bench.done()
        assert bench.local.words == bench.words
        assert bench.dram.data == bench.bytes
    assert bench.errors == 0


@cocotb.test()
async def throughput(dut: Any) -> None:
    """At least 95 % of the cycles of a long block move a beat; short rows cost little more."""
    rng = make_rng(46)
    bench = Bench(dut, rng, 10, 0.0)
    await start(dut)
    beats = W // BUS
    for opcode in OPCODES:
        for rows, words in ((1, min(4000 // beats, 2000)), (20, 96 // beats), (60, 10)):
            fields = {"local_address": 0, "local_stride": words, "dram_address": 5 * W}
            bench.offer(opcode, rows=rows, words=words, dram_stride=words * W, **fields)
            cycles = await bench.done()
            share = rows * words * beats / cycles
            print(f"{opcode.name} {rows} x {words} words: {cycles} cycles, {share:.1%} of beats")
            if opcode == Opcode.DMA_LOAD:
                # It ends a latency after its last beat.
                assert cycles - rows * words * beats < min(2 * rows, 0.05 * cycles) + BEATS + 40
                assert share >= 0.95 or rows > 1
            else:
                # The words of a burst are read while the one before leaves; one of two beats takes
                # three cycles where local memory, as here, takes no request in its first.
                assert share >= (0.5 if beats == 2 else 0.6) or words < 24
