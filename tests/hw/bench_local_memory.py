"""All clients at once, at random, against a memory that serves reads before writes each cycle."""

import json
import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LOCAL_READ_LATENCY, make_rng, start

from gateformer.hw.local_memory import READERS, WRITERS
from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
WORD_BYTES = CONFIG.word_bytes
BITS = 8 * WORD_BYTES
FULL = (1 << WORD_BYTES) - 1


class Clients:
    """Drives every port, one cycle a call, and checks grants, responses and errors."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng = dut, make_rng(seed)
        self.memory: dict[int, int] = {}
        self.offers: dict[str, tuple[int, int, int] | None] = dict.fromkeys([*READERS, *WRITERS])
        self.responses: dict[int, tuple[str, int | None]] = {}
        self.cycle = 0
        self.taken = dict.fromkeys([*READERS, *WRITERS], 0)
        self.errors: list[int] = []
        self.expected_errors: list[int] = []
        self.reads_taken = self.writes_taken = 0
        for name in self.offers:
            getattr(dut, f"{name}__request__valid").value = 0
        dut.stall.value = 0

    def offer(self, name: str, address: int) -> None:
        rng = self.rng
        data, mask = rng.getrandbits(BITS), rng.choice((FULL, FULL, rng.randrange(FULL + 1)))
        self.offers[name] = (address, data, mask)
        payload = address if name in READERS else address | data << 16 | mask << (16 + BITS)
        getattr(self.dut, f"{name}__request__payload").value = payload

    async def step(self, stall: int = 0) -> None:
        """The rest of the cycle after the offers were made."""
        dut = self.dut
        for name, offer in self.offers.items():
            getattr(dut, f"{name}__request__valid").value = int(offer is not None)
        dut.stall.value = stall
        await ReadOnly()
        winners: dict[str, str] = {}
        for kind, ports in (("read", READERS), ("write", WRITERS)):
            is_open = None
            asked = False
            for name in ports:
                ready = int(getattr(dut, f"{name}__request__ready").value)
                is_open = ready if is_open is None else is_open
                assert ready == (is_open and not asked), (name, self.cycle)
                if self.offers[name] is not None:
                    if ready:
                        winners[kind] = name
                    asked = True
        if stall & 1:
            assert "read" not in winners
        if stall & 2:
            assert "write" not in winners
        if CONFIG.memory_ports == 1:
            assert len(winners) <= 1
        wanted = self.responses.pop(self.cycle, None)
        for name in READERS:
            valid = int(getattr(dut, f"{name}__response_valid").value)
            assert valid == (wanted is not None and wanted[0] == name), (name, self.cycle)
            if valid and wanted is not None and wanted[1] is not None:
                assert int(getattr(dut, f"{name}__response").value) == wanted[1], name
        if int(dut.error.value):
            self.errors.append(int(dut.error_client.value))
        # A read taken together with a write sees the word before it.
        if "read" in winners:
            name = winners["read"]
            address, _, _ = self.offers[name]  # type: ignore[misc]
            self.responses[self.cycle + LOCAL_READ_LATENCY] = (name, self.memory.get(address))
            self.reads_taken += 1
        if "write" in winners:
            address, data, mask = self.offers[winners["write"]]  # type: ignore[misc]
            if address < CONFIG.local_words:
                old = self.memory.get(address, None)
                if old is not None or mask == FULL:
                    lanes = sum(0xFF << 8 * i for i in range(WORD_BYTES) if mask >> i & 1)
                    self.memory[address] = (old or 0) & ~lanes | data & lanes
            self.writes_taken += 1
        for name in winners.values():
            if self.offers[name][0] >= CONFIG.local_words:  # type: ignore[index]
                self.expected_errors.append({**READERS, **WRITERS}[name].value)
            self.taken[name] += 1
            self.offers[name] = None
        self.cycle += 1
        await FallingEdge(dut.clk)

    async def drain(self) -> None:
        while any(offer is not None for offer in self.offers.values()) or self.responses:
            await self.step()


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Nothing is lost, doubled or reordered, under any load, with few and with many addresses."""
    await start(dut)
    clients = Clients(dut, 30)
    rng = clients.rng
    for phase in range(24):
        load = rng.choice((0.05, 0.2, 0.5, 1.0))
        pool = rng.choice((2, 5, CONFIG.local_words))
        stalls = rng.choice((0.0, 0.3))
        hot = rng.randrange(CONFIG.local_words - pool + 1)
        for _ in range(150):
            for name, offer in clients.offers.items():
                if offer is None and rng.random() < load * (0.3 if phase % 2 else 1):
                    clients.offer(name, hot + rng.randrange(pool))
            await clients.step(sum((rng.random() < stalls) << bit for bit in range(2)))
    await clients.drain()
    assert not clients.errors
    assert all(clients.taken.values()), clients.taken


@cocotb.test()
async def throughput(dut: Any) -> None:
    """A read and a write each cycle with two ports, one of them, in turns, with one."""
    await start(dut)
    clients = Clients(dut, 31)
    cycles = 200
    for _ in range(cycles):
        for name, half in (("read_load_b", 0), ("write_dma", CONFIG.local_words // 2)):
            if clients.offers[name] is None:
                clients.offer(name, half + clients.rng.randrange(CONFIG.local_words // 2))
        await clients.step()
    if CONFIG.memory_ports == 2:
        assert clients.reads_taken == clients.writes_taken == cycles
    else:
        assert clients.reads_taken == clients.writes_taken == cycles // 2
    await clients.drain()


@cocotb.test()
async def read_right_after_write(dut: Any) -> None:
    """A read taken in the cycle after a write sees it; one in its own cycle does not."""
    await start(dut)
    clients = Clients(dut, 32)
    for _ in range(100):
        clients.offer("write_epilogue", 7)
        clients.offer("read_host", 7)
        await clients.step()
        clients.offer("read_load_a", 7)
        while clients.offers["write_epilogue"] is not None:
            await clients.step()
        clients.offer("read_epilogue", 7)
        await clients.drain()


@cocotb.test()
async def errors(dut: Any) -> None:
    """A request beyond the memory is told with its engine; it changes nothing."""
    await start(dut)
    clients = Clients(dut, 33)
    rng = clients.rng
    for address in range(CONFIG.local_words):
        clients.offer("write_host", address)
        while clients.offers["write_host"] is not None:
            await clients.step()
    for name in [*clients.offers] * 6:
        clients.offer(name, rng.choice((CONFIG.local_words, 0xFFFF, 1 << 15)))
        for _ in range(6):
            await clients.step()
        await clients.drain()
    assert clients.errors == clients.expected_errors
    assert len(clients.errors) == 6 * len(clients.offers)
    for address in range(CONFIG.local_words):
        clients.offer("read_host", address)
        while clients.offers["read_host"] is not None:
            await clients.step()
    await clients.drain()
