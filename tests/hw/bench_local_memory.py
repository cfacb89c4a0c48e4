"""All clients at once, at random, against a memory that serves reads before writes each cycle."""

import itertools
import json
import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, read_latency, start

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
        # At its cycle, whose response comes, and the word with the bits that are known.
        self.responses: dict[int, tuple[str, int, int]] = {}
        self.known: set[int] = set()
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
            ready = [n for n in ports if int(getattr(dut, f"{n}__request__ready").value)]
            assert len(ready) <= 1, (ready, self.cycle)
            for name in ready:
                if self.offers[name] is not None:
                    winners[kind] = name
            assert not (ready and stall & {"read": 1, "write": 2}[kind])
        if CONFIG.memory_ports == 1:
            assert len(winners) <= 1
        due, wanted, sure = self.responses.pop(self.cycle, ("", 0, 0))
        for name in READERS:
            valid = int(getattr(dut, f"{name}__response_valid").value)
            assert valid == (due == name), (name, self.cycle)
            if valid:
                assert int(getattr(dut, f"{name}__response").value) & sure == wanted & sure, name
        if int(dut.error.value):
            self.errors.append(int(dut.error_client.value))
        written, lanes = -1, 0
        if "write" in winners:
            written, data, mask = self.offers[winners["write"]]  # type: ignore[misc]
            lanes = sum(0xFF << 8 * i for i in range(WORD_BYTES) if mask >> i & 1)
        if "read" in winners:
            name = winners["read"]
            address, _, _ = self.offers[name]  # type: ignore[misc]
            sure = (1 << BITS) - 1 if address in self.known else 0
            sure &= ~lanes if address == written else -1
            word = self.memory.get(address, 0)
            self.responses[self.cycle + read_latency()] = (name, word, sure)
            self.reads_taken += 1
        if "write" in winners:
            if written < CONFIG.local_words:
                self.memory[written] = self.memory.get(written, 0) & ~lanes | data & lanes
                if mask == FULL:
                    self.known.add(written)
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
    for streams in (("read_load_b", "write_dma"), ("read_load_a", "read_load_b"), ("write_host",)):
        await start(dut)
        clients = Clients(dut, 31)
        cycles = 200
        for _ in range(cycles):
            for i, name in enumerate(streams):
                if clients.offers[name] is None:
                    half = CONFIG.local_words // 2
                    clients.offer(name, i * half + clients.rng.randrange(half))
            await clients.step()
        # The first request is taken in its second cycle.
        kinds = {name.split("_")[0] for name in streams}
        for name in streams:
            share = cycles if CONFIG.memory_ports == len(kinds) == 2 else cycles // len(streams)
            assert share - 2 <= clients.taken[name] <= share, (name, clients.taken)
        await clients.drain()


@cocotb.test()
async def urgency(dut: Any) -> None:
    """Of two that ask at the same time, the more urgent is served first."""
    await start(dut)
    clients = Clients(dut, 34)
    for ports in (READERS, WRITERS):
        names = list(ports)
        for first, second in itertools.pairwise(names):
            for name in (second, first):
                clients.offer(name, 3)
            while clients.offers[first] is not None:
                assert clients.offers[second] is not None
                await clients.step()
            await clients.drain()


@cocotb.test()
async def read_right_after_write(dut: Any) -> None:
    """A read taken in the cycle after a write sees it."""
    await start(dut)
    clients = Clients(dut, 32)
    followed = 0
    for _ in range(60):
        clients.offer("write_epilogue", 7)
        for _ in range(clients.rng.randrange(3)):
            await clients.step()
        clients.offer("read_load_a", 7)
        write_taken = 0
        while clients.offers["read_load_a"] is not None:
            if clients.offers["write_epilogue"] is None:
                write_taken += 1
            await clients.step()
        followed += write_taken == 1
        await clients.drain()
    assert followed


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
