"""Random reads and writes of a WordRam against a dictionary."""

import os
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

DEPTH = int(os.environ["DEPTH"])
WIDTH_BYTES = int(os.environ["WIDTH_BYTES"])
PORTS = int(os.environ["PORTS"])
ORDERED = bool(int(os.environ["ORDERED"]))
LATENCY = 2


@cocotb.test()
async def random_access(dut: Any) -> None:
    """A new access every cycle; the word comes LATENCY cycles after its address."""
    rng = make_rng(20)
    await start(dut)
    bits = 8 * WIDTH_BYTES
    full = (1 << WIDTH_BYTES) - 1
    # Few addresses, around every border between blocks, so that they are met again.
    borders = [0, DEPTH - 1, *(b + d for b in range(512, DEPTH, 512) for d in (-1, 0))]
    pool = borders + [rng.randrange(DEPTH) for _ in range(30)]
    model: dict[int, int] = {}
    expected: deque[int | None] = deque([None] * LATENCY)
    checked = 0
    write = 0
    for cycle in range(6000):
        write, last = rng.choice(pool), write
        read = last if rng.random() < 0.3 else rng.choice(pool)
        if cycle < len(pool):
            write, mask = pool[cycle], full
        else:
            mask = rng.choice((0, full, rng.randrange(full + 1)))
        if read == write and PORTS == 2 and not ORDERED:
            mask = 0 if cycle >= len(pool) else mask
            read = (read + 1) % DEPTH if mask else read
        data = rng.getrandbits(bits)
        dut.write_mask.value = mask
        dut.write_data.value = data
        if PORTS == 2:
            dut.write_address.value = write
            dut.read_address.value = read
        else:
            dut.address.value = write if mask else read
        await ReadOnly()
        wanted = expected.popleft()
        if wanted is not None:
            assert int(dut.read_data.value) == wanted
            checked += 1
        expected.append(None if PORTS == 1 and mask else model.get(read))
        for byte in range(WIDTH_BYTES):
            if mask >> byte & 1:
                keep = ~(0xFF << 8 * byte)
                model[write] = model.get(write, 0) & keep | data & 0xFF << 8 * byte
        await FallingEdge(dut.clk)
    assert checked > 1000
