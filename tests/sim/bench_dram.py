"""The model of external memory: contents, order and timing."""

import json
import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import DramTiming

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
TIMING = DramTiming(**json.loads(os.environ["TIMING"]))
BUS = CONFIG.bus_bytes
BURST = CONFIG.burst_bytes
BEATS = BURST // BUS
SIZE = 1 << 14
IDEAL = not TIMING.miss_cycles


class Port:
    """Queues of bursts and beats on both halves of the port; call `step` once a cycle."""

    def __init__(self, dut: Any, seed: int) -> None:
        print(f"seed {seed}")
        self.dut, self.rng = dut, random.Random(seed)
        self.reads: list[int] = []
        self.writes: list[int] = []
        self.write_beats: list[int] = []
        self.got: list[tuple[int, int]] = []
        self.acknowledged = 0
        self.cycle = 0
        self.read_taken: list[int] = []
        self.standing: int | None = None

    async def start(self) -> None:
        dut = self.dut
        for name in ("read__burst", "write__burst", "write__data"):
            getattr(dut, f"{name}__valid").value = 0
        dut.read__data__ready.value = 0
        dut.write__acknowledge__ready.value = 0
        dut.stall.value = 0
        Clock(dut.clk, 2, "step").start()
        dut.rst.value = 1
        for _ in range(3):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        await FallingEdge(dut.clk)

    async def step(self, ready: bool = True, stall: bool = False) -> None:
        dut = self.dut
        offers = {
            "read__burst": self.reads,
            "write__burst": self.writes,
            "write__data": self.write_beats,
        }
        for name, queue in offers.items():
            getattr(dut, f"{name}__valid").value = int(bool(queue))
            if queue:
                getattr(dut, f"{name}__payload").value = queue[0]
        dut.read__data__ready.value = int(ready)
        dut.write__acknowledge__ready.value = int(ready)
        dut.stall.value = int(stall)
        await ReadOnly()
        for name, queue in offers.items():
            taken = bool(queue) and int(getattr(dut, f"{name}__ready").value)
            assert not (taken and stall), name
            if taken:
                queue.pop(0)
                if name == "read__burst":
                    self.read_taken.append(self.cycle)
        valid = int(dut.read__data__valid.value)
        value = int(dut.read__data__payload.value) if valid else None
        if self.standing is not None:
            assert value == self.standing, "an offered beat changed"
        self.standing = value if valid and not ready else None
        if valid and ready:
            self.got.append((self.cycle, value or 0))
        if ready and int(dut.write__acknowledge__valid.value):
            self.acknowledged += 1
        self.cycle += 1
        await FallingEdge(dut.clk)

    def read(self, address: int, beats: int) -> None:
        self.reads.append(address | beats << 32)

    def write(self, address: int, values: list[int]) -> None:
        self.writes.append(address | len(values) << 32)
        self.write_beats.extend(values)


@cocotb.test()
async def contents(dut: Any) -> None:
    """What was acknowledged is read; stalls and refusals change only the time."""
    port = Port(dut, 60)
    rng = port.rng
    await port.start()
    memory: dict[int, int] = {}
    for stalls in (0.0, 0.4):
        expected: list[int] = []
        port.got.clear()
        for _ in range(12):
            acknowledged = port.acknowledged
            blocks = rng.sample(range(SIZE // BURST), 3)
            for block in blocks:
                beats = rng.randrange(1, BEATS + 1)
                address = block * BURST + BUS * rng.randrange(BEATS - beats + 1)
                values = [rng.getrandbits(8 * BUS) for _ in range(beats)]
                port.write(address, values)
                memory |= {address + i * BUS: v for i, v in enumerate(values)}
            while port.acknowledged < acknowledged + len(blocks):
                await port.step(rng.random() >= stalls, rng.random() < stalls)
            for address in rng.sample(sorted(memory), 8):
                port.read(address, 1)
                expected.append(memory[address])
            while len(port.got) < len(expected):
                await port.step(rng.random() >= stalls, rng.random() < stalls)
        assert [value for _, value in port.got] == expected


@cocotb.test()
async def timing(dut: Any) -> None:
    """Latency, a beat a cycle within a row, row misses, refreshes."""
    port = Port(dut, 61)
    await port.start()
    row = TIMING.row_bytes
    port.read(0, 1)
    while len(port.got) < 1:
        await port.step()
    first = port.got[0][0] - port.read_taken[0]
    port.read(2 * BUS, 1)
    while len(port.got) < 2:
        await port.step()
    hit = port.got[1][0] - port.read_taken[1]
    print(f"latency {hit}, {first} with a row miss")
    assert first - hit == TIMING.miss_cycles
    assert TIMING.latency <= hit <= TIMING.latency + 2

    # A long stream of full bursts; one row holds row // BURST of them.
    port.got.clear()
    bursts = 40
    for i in range(bursts):
        port.read(row + i * BURST, BEATS)
    while len(port.got) < bursts * BEATS:
        await port.step()
    cycles = port.got[-1][0] - port.got[0][0] + 1
    # A cycle a burst goes into taking it.
    misses = (bursts * BURST - 1) // row
    lost = cycles - bursts * BEATS - (bursts - 1)
    if IDEAL:
        assert lost <= 0
    else:
        refreshes = bursts * BEATS / TIMING.refresh_every
        each = TIMING.refresh_cycles + TIMING.miss_cycles + 2
        assert misses * TIMING.miss_cycles <= lost + bursts
        assert lost <= misses * TIMING.miss_cycles + (refreshes + 2) * each
    print(f"{bursts * BEATS} beats read in {cycles} cycles")


@cocotb.test()
async def shared_bus(dut: Any) -> None:
    """Reads and writes share one beat a cycle, and neither starves."""
    port = Port(dut, 62)
    await port.start()
    bursts = 12
    for i in range(bursts):
        port.read(i * BURST, BEATS)
        port.write(i * BURST, [i] * BEATS)
    begin = port.cycle
    halfway = 0
    while len(port.got) < bursts * BEATS or port.acknowledged < bursts:
        await port.step()
        if port.acknowledged == bursts // 2:
            halfway = len(port.got)
    cycles = port.cycle - begin
    assert cycles >= 2 * bursts * BEATS
    assert abs(halfway - bursts // 2 * BEATS) <= 2 * BEATS
    if IDEAL:
        assert cycles <= 2 * bursts * (BEATS + 1) + TIMING.latency + 8
