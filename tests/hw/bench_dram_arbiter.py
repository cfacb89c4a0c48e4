"""The DRAM arbiter between two clients and a memory; the local fetch in front of local memory."""

import json
import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import (
    ExternalMemoryModel,
    LocalMemoryModel,
    StreamSink,
    StreamSource,
    make_rng,
    start,
    wait_until,
)

from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
ARBITER = os.environ["UNIT"] == "arbiter"
BUS = CONFIG.bus_bytes
DRAM_BYTES = 1 << 14


async def share(dut: Any, seed: int, gap: float, offers: float) -> None:
    """Random bursts of both clients: each gets its own beats, in its own order."""
    rng = make_rng(seed)
    data = bytearray(rng.randbytes(DRAM_BYTES))
    memory = ExternalMemoryModel(
        dut,
        data=data,
        bus_bytes=BUS,
        burst_bytes=CONFIG.burst_bytes,
        rng=rng,
        read="port",
        write=None,
        latency=7,
        gap=gap,
    )
    sources, sinks, expected = {}, {}, {}
    await start(dut)
    for name, most in (("fetch", 32 // BUS), ("dma", CONFIG.burst_bytes // BUS)):
        sources[name] = StreamSource(dut, f"{name}__burst", rng, gap=1 - offers)
        sinks[name] = StreamSink(dut, f"{name}__data", rng, gap=gap)
        expected[name] = []
        for _ in range(60):
            beats = rng.randrange(1, most + 1)
            block = rng.randrange(DRAM_BYTES // CONFIG.burst_bytes) * CONFIG.burst_bytes
            address = block + BUS * rng.randrange(CONFIG.burst_bytes // BUS - beats + 1)
            sources[name].queue.append(address | beats << 32)
            expected[name] += [
                int.from_bytes(data[a : a + BUS], "little")
                for a in range(address, address + beats * BUS, BUS)
            ]
    total = sum(map(len, expected.values()))
    await wait_until(dut, lambda: memory.beats_read >= total, 40_000)
    for _ in range(30):
        await FallingEdge(dut.clk)
    for name, sink in sinks.items():
        assert sink.received == expected[name], name
    assert len(memory.read_bursts) == 120


@cocotb.test(skip=not ARBITER)
async def busy(dut: Any) -> None:
    await share(dut, 50, gap=0.0, offers=1.0)


@cocotb.test(skip=not ARBITER)
async def stalls(dut: Any) -> None:
    await share(dut, 51, gap=0.4, offers=0.3)


@cocotb.test(skip=not ARBITER)
async def fetch_first(dut: Any) -> None:
    """When both wait, fetch is taken; what the port shows stays until it is taken."""
    dut.port__burst__ready.value = 0
    dut.port__data__valid.value = 0
    await start(dut)
    beats = 1 << 32
    dut.fetch__burst__payload.value = 0x100 | beats
    dut.dma__burst__payload.value = 0x200 | beats
    dut.fetch__burst__valid.value = 1
    dut.dma__burst__valid.value = 1
    await ReadOnly()
    assert int(dut.fetch__burst__ready.value) and not int(dut.dma__burst__ready.value)
    await FallingEdge(dut.clk)
    dut.fetch__burst__payload.value = 0x300 | beats
    for _ in range(3):
        await ReadOnly()
        assert int(dut.port__burst__valid.value)
        assert int(dut.port__burst__payload.value) == 0x100 | beats
        assert not int(dut.fetch__burst__ready.value) and not int(dut.dma__burst__ready.value)
        await FallingEdge(dut.clk)


@cocotb.test(skip=ARBITER)
async def local_program(dut: Any) -> None:
    """The words from `program` to the end of memory, then `missing`; restarts after an abort."""
    rng = make_rng(52)
    word_bytes = CONFIG.word_bytes
    data = rng.randbytes(CONFIG.local_bytes)
    memory = LocalMemoryModel(
        dut,
        words=[
            int.from_bytes(data[i : i + word_bytes], "little")
            for i in range(0, len(data), word_bytes)
        ],
        word_bytes=word_bytes,
        rng=rng,
        reads=("read",),
        gap=0.3,
    )
    dut.restart.value = 0
    dut.abort.value = 1
    dut.words__ready.value = 0
    await start(dut)

    async def restart(begin: int) -> None:
        dut.abort.value = 1
        await wait_until(dut, lambda: bool(int(dut.quiet.value)), 100)
        dut.program.value = begin
        dut.restart.value = 1
        await FallingEdge(dut.clk)
        dut.restart.value = 0
        dut.abort.value = 0

    async def take(most: int) -> bytes:
        """Takes words until there are `most`, or the end of memory."""
        words: list[int] = []
        while len(words) < most:
            ready = rng.random() < 0.5
            dut.words__ready.value = int(ready)
            await ReadOnly()
            valid, missing = int(dut.words__valid.value), int(dut.missing.value)
            assert not (valid and missing)
            if ready and valid:
                words.append(int(dut.words__payload.value))
            await FallingEdge(dut.clk)
            if missing:
                break
        dut.words__ready.value = 0
        return b"".join(w.to_bytes(4, "little") for w in words)

    for instructions in (10, 3, 1, 2, 0):
        begin = len(data) - 32 * instructions
        # A part, cut off wherever the fetch may be then, and all of it.
        for most in (*rng.sample(range(8 * instructions + 1), min(3, 8 * instructions)), 1000):
            await restart(begin)
            got = await take(most)
            assert got == data[begin:][: 4 * most]
            for _ in range(rng.randrange(12)):
                await FallingEdge(dut.clk)
    for outside in (len(data), 1 << 20, 1 << CONFIG.dram_bits - 1):
        await restart(outside)
        assert await take(1) == b""
    assert all(address < CONFIG.local_words for _, address in memory.asked)
