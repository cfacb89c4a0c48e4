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
LATENCY = int(os.environ["LATENCY"])


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
    # The word and the bits of it that are known.
    expected: deque[tuple[int, int]] = deque([(0, 0)] * LATENCY)
    known: set[int] = set()
    checked = 0
    write = 0
    for cycle in range(6000):
        write, last = rng.choice(pool), write
        read = last if rng.random() < 0.3 else rng.choice(pool)
        if cycle < len(pool):
            write, mask = pool[cycle], full
        else:
            mask = rng.choice((0, full, rng.randrange(full + 1)))
        data = rng.getrandbits(bits)
        lanes = sum(0xFF << 8 * byte for byte in range(WIDTH_BYTES) if mask >> byte & 1)
        dut.write_mask.value = mask
        dut.write_data.value = data
        if PORTS == 2:
            dut.write_address.value = write
            dut.read_address.value = read
        else:
            dut.address.value = write if mask else read
        await ReadOnly()
        wanted, sure = expected.popleft()
        assert int(dut.read_data.value) & sure == wanted & sure
        checked += sure != 0
        if read not in known or (PORTS == 1 and mask):
            expected.append((0, 0))
        else:
            unsure = lanes if PORTS == 2 and write == read else 0
            expected.append((model[read], (1 << bits) - 1 & ~unsure))
        model[write] = model.get(write, 0) & ~lanes | data & lanes
        if mask == full:
            known.add(write)
        await FallingEdge(dut.clk)
    assert checked > 1000
