"""LOAD_P: blocks of all sizes through a small ring, read by every lane before their release."""

import json
import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LocalMemoryModel, StreamSource, make_rng, start

from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
GROUP = CONFIG.word_bytes // 8
LANES = CONFIG.epilogue_lanes
WORDS = 4096
READ_LATENCY = 2


async def run(dut: Any, seed: int, gap: float, counts: list[int]) -> int:
    """Loads blocks of `counts` records, reads each whole, releases it; returns the cycles."""
    rng = make_rng(seed)
    numpy = np.random.default_rng(seed)
    memory = numpy.integers(0, 256, (WORDS, CONFIG.word_bytes), np.uint8)
    blocks, payloads, free = [], [], 1
    for count in counts:
        words = -(-count // GROUP)
        records = arithmetic.pack_scale_records(
            numpy.integers(-(2**31), 2**31, count),
            numpy.integers(0, 65536, count),
            numpy.integers(0, 4, count),
        )
        memory[free : free + words].reshape(-1)[: 8 * count] = records.reshape(-1)
        block = instruction(Opcode.LOAD_P, count=count, p_address=free)
        payloads.append(int.from_bytes(block.encode().tobytes(), "little"))
        blocks.append([int.from_bytes(r.tobytes(), "little") for r in records])
        free += words + rng.randrange(3)

    dut.release.value = 0
    await start(dut)
    LocalMemoryModel(
        dut,
        words=[int.from_bytes(word.tobytes(), "little") for word in memory],
        word_bytes=CONFIG.word_bytes,
        rng=rng,
        reads=("read",),
        gap=gap,
    )
    source = StreamSource(dut, "instructions__stream", rng, gap)
    source.queue.extend(payloads)

    cycles, base = 0, 0
    width = (CONFIG.p_depth - 1).bit_length()
    for count, records in zip(counts, blocks, strict=True):
        words = -(-count // GROUP)
        while True:
            await FallingEdge(dut.clk)
            cycles += 1
            await ReadOnly()
            if int(dut.stored.value) >= words:
                break
            assert cycles < 50_000
        assert int(dut.base.value) == base
        # Lane l reads records l, l + 1, ...: one a cycle, while the next blocks are loaded.
        pipe: list[list[int | None]] = []
        for step in range(count + READ_LATENCY):
            await FallingEdge(dut.clk)
            cycles += 1
            addresses, wanted = 0, []
            for lane in range(LANES):
                index = step + lane
                read = index < count
                wanted.append(records[index] if read else None)
                addresses |= (base + index if read else 0) % CONFIG.p_depth << width * lane
            dut.addresses.value = addresses
            pipe.append(wanted)
            await ReadOnly()
            if step >= READ_LATENCY:
                got = int(dut.records.value)
                for lane, want in enumerate(pipe[step - READ_LATENCY]):
                    if want is not None:
                        assert got >> 50 * lane & (1 << 50) - 1 == want & (1 << 50) - 1
        await FallingEdge(dut.clk)
        dut.release.value = 1
        dut.release_words.value = words
        await FallingEdge(dut.clk)
        dut.release.value = 0
        await FallingEdge(dut.clk)
        cycles += 3
        base = (base + words * GROUP) % CONFIG.p_depth
    assert source.idle
    return cycles


@cocotb.test()
@cocotb.parametrize((("seed", "gap"), [(1, 0.0), (2, 0.3), (3, 0.7)]))
async def blocks_of_all_sizes(dut: Any, seed: int, gap: float) -> None:
    counts = [1 + i % CONFIG.p_depth for i in range(2 * CONFIG.p_depth)]
    counts += [CONFIG.p_depth] * 3 + [0, 1, 0, 0, 5]
    await run(dut, seed, gap, counts)


@cocotb.test()
async def rate(dut: Any) -> None:
    """A word every other cycle, or as it is unpacked."""
    count = CONFIG.p_depth
    cycles = await run(dut, 4, 0.0, [count])
    assert cycles <= count // GROUP * max(2, GROUP) + count + 14
