"""What the cocotb benches share: clock, streams, and a model of local memory's clients' side.

One discipline for all: inputs change at the falling edge of the clock; after that, in the
read-only phase, everything is settled, and a stream whose `valid` and `ready` are both 1 there
transfers at the next rising edge.
"""

import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from gateformer.hw.interfaces import local_read_latency
from gateformer.spec.config import AcceleratorConfig


def read_latency() -> int:
    """Cycles from a read request of local memory to its response, with the config of the bench."""
    return local_read_latency(AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"])))


def make_rng(seed: int) -> random.Random:
    """A seeded generator; the seed is printed."""
    print(f"seed {seed}")
    return random.Random(seed)


async def start(dut: Any) -> None:
    """Starts the clock and resets; returns just after a falling edge with the reset released."""
    Clock(dut.clk, 2, "step").start()
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


async def wait_until(dut: Any, condition: Callable[[], bool], limit: int = 100_000) -> int:
    """Waits, a falling edge at a time, until the condition holds; returns the cycles it took.

    Raises AssertionError after `limit` cycles.
    """
    for cycle in range(limit):
        if condition():
            return cycle
        await FallingEdge(dut.clk)
    raise AssertionError(f"nothing after {limit} cycles")


class StreamSource:
    """Sends the payloads appended to `queue` into the stream `prefix`.

    gap: probability of a cycle without `valid` between payloads.
    """

    def __init__(self, dut: Any, prefix: str, rng: random.Random, gap: float = 0.0) -> None:
        self.dut, self.rng, self.gap = dut, rng, gap
        self.valid = getattr(dut, f"{prefix}__valid")
        self.ready = getattr(dut, f"{prefix}__ready")
        self.payload = getattr(dut, f"{prefix}__payload", None)
        self.queue: deque[int] = deque()
        self.sent = 0
        self.valid.value = 0
        cocotb.start_soon(self._run())

    @property
    def idle(self) -> bool:
        return not self.queue

    async def _run(self) -> None:
        offered = False
        while True:
            await FallingEdge(self.dut.clk)
            if not offered and self.queue and self.rng.random() >= self.gap:
                offered = True
                if self.payload is not None:
                    self.payload.value = self.queue[0]
            self.valid.value = int(offered)
            await ReadOnly()
            if offered and int(self.ready.value):
                offered = False
                self.queue.popleft()
                self.sent += 1


class StreamSink:
    """Takes payloads from the stream `prefix` into `received`; checks that an offer stands.

    gap: probability of a cycle without `ready`.
    """

    def __init__(self, dut: Any, prefix: str, rng: random.Random, gap: float = 0.0) -> None:
        self.dut, self.rng, self.gap, self.prefix = dut, rng, gap, prefix
        self.valid = getattr(dut, f"{prefix}__valid")
        self.ready = getattr(dut, f"{prefix}__ready")
        self.payload = getattr(dut, f"{prefix}__payload", None)
        self.received: list[int] = []
        self.ready.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        standing: int | None = None
        while True:
            await FallingEdge(self.dut.clk)
            ready = self.rng.random() >= self.gap
            self.ready.value = int(ready)
            await ReadOnly()
            valid = int(self.valid.value)
            if standing is not None:
                assert valid, f"{self.prefix}: valid was withdrawn"
            if not valid:
                continue
            value = int(self.payload.value) if self.payload is not None else 0
            if standing is not None:
                assert value == standing, f"{self.prefix}: the payload changed before it was taken"
            standing = value
            if ready:
                self.received.append(value)
                standing = None


class LocalMemoryModel:
    """Local memory as its clients see it: `words` is the contents, one int a word.

    reads, writes: prefixes of LocalRead and LocalWrite ports of the dut. Every port is granted on
    its own with probability 1 - gap a cycle; with `late`, no request is taken in its first cycle,
    as in hw/local_memory.py. Writes go through masks; `written` lists (prefix,
    address, data, mask) and `asked` lists (prefix, address) in order.
    """

    def __init__(
        self,
        dut: Any,
        *,
        words: list[int],
        word_bytes: int,
        rng: random.Random,
        reads: Iterable[str] = (),
        writes: Iterable[str] = (),
        gap: float = 0.0,
        late: bool = False,
    ) -> None:
        self.dut, self.words, self.word_bytes, self.rng, self.gap = dut, words, word_bytes, rng, gap
        self.late = late
        self.written: list[tuple[str, int, int, int]] = []
        self.asked: list[tuple[str, int]] = []
        self.reads, self.writes = tuple(reads), tuple(writes)
        for prefix in self.reads:
            getattr(dut, f"{prefix}__request__ready").value = 0
            getattr(dut, f"{prefix}__response_valid").value = 0
        for prefix in self.writes:
            getattr(dut, f"{prefix}__request__ready").value = 0
        cocotb.start_soon(self._run())

    def write(self, address: int, data: int, mask: int) -> None:
        for byte in range(self.word_bytes):
            if mask >> byte & 1:
                keep = ~(0xFF << 8 * byte)
                self.words[address] = self.words[address] & keep | data & 0xFF << 8 * byte

    async def _run(self) -> None:
        width = 8 * self.word_bytes
        # The word of a request taken in one cycle is read then and shown `latency` cycles later.
        latency = read_latency()
        pipes = {prefix: deque([None] * (latency - 1), latency) for prefix in self.reads}
        taken: dict[str, int | None] = dict.fromkeys(self.reads)
        waited: set[str] = set()
        while True:
            await FallingEdge(self.dut.clk)
            for prefix in self.reads:
                pipe = pipes[prefix]
                pipe.append(taken[prefix])
                word = pipe.popleft()
                getattr(self.dut, f"{prefix}__response_valid").value = int(word is not None)
                getattr(self.dut, f"{prefix}__response").value = (
                    self.rng.getrandbits(width) if word is None else word
                )
            grants = {}
            for prefix in (*self.reads, *self.writes):
                grants[prefix] = self.rng.random() >= self.gap
                grants[prefix] &= prefix in waited or not self.late
                getattr(self.dut, f"{prefix}__request__ready").value = int(grants[prefix])
            await ReadOnly()
            if self.late:
                waited = {
                    prefix
                    for prefix in (*self.reads, *self.writes)
                    if int(getattr(self.dut, f"{prefix}__request__valid").value)
                }
            for prefix in self.reads:
                taken[prefix] = None
                if grants[prefix] and int(getattr(self.dut, f"{prefix}__request__valid").value):
                    address = int(getattr(self.dut, f"{prefix}__request__payload").value)
                    self.asked.append((prefix, address))
                    taken[prefix] = self.words[address]
            for prefix in self.writes:
                if grants[prefix] and int(getattr(self.dut, f"{prefix}__request__valid").value):
                    value = int(getattr(self.dut, f"{prefix}__request__payload").value)
                    address = value & 0xFFFF
                    data = value >> 16 & (1 << width) - 1
                    mask = value >> (16 + width)
                    self.written.append((prefix, address, data, mask))
                    self.write(address, data, mask)


class ExternalMemoryModel:
    """External memory behind a DramRead and a DramWrite port: `data` is the contents in bytes.

    Serves both ports independently. latency: cycles from a read burst to its first beat; gap:
    probability of a refused handshake a cycle on each stream. queue: bursts taken ahead. Checks
    that bursts are well formed and that no write beat comes before its burst. `read_bursts`,
    `write_bursts`: (address, beats) in order; `beats_read`, `beats_written`: beats moved so far.
    """

    def __init__(
        self,
        dut: Any,
        *,
        data: bytearray,
        bus_bytes: int,
        burst_bytes: int,
        rng: random.Random,
        read: str | None = "dram_read",
        write: str | None = "dram_write",
        latency: int = 10,
        gap: float = 0.0,
        queue: int = 4,
    ) -> None:
        self.dut, self.data, self.bus_bytes, self.burst_bytes = dut, data, bus_bytes, burst_bytes
        self.rng, self.read, self.write = rng, read, write
        self.latency, self.gap, self.queue = latency, gap, queue
        self.read_bursts: list[tuple[int, int]] = []
        self.write_bursts: list[tuple[int, int]] = []
        self.beats_read = self.beats_written = 0
        self._beats: deque[tuple[int, int]] = deque()
        self._ends: deque[int] = deque()
        self._open: deque[list[int]] = deque()
        self._acknowledges: deque[int] = deque()
        self._standing = False
        self._acknowledging = False
        self._writing = False
        cocotb.start_soon(self._run())

    @property
    def outstanding(self) -> bool:
        return bool(self._beats or self._open or self._acknowledges)

    def _burst(self, payload: int) -> tuple[int, int]:
        address, beats = payload & 0xFFFFFFFF, payload >> 32
        size = beats * self.bus_bytes
        assert beats > 0 and address % self.bus_bytes == 0
        assert address // self.burst_bytes == (address + size - 1) // self.burst_bytes
        return address, beats

    def _signal(self, port: str | None, name: str) -> Any:
        return getattr(self.dut, f"{port}__{name}")

    def _go(self) -> bool:
        return self.rng.random() >= self.gap

    async def _run(self) -> None:
        cycle = 0
        while True:
            await FallingEdge(self.dut.clk)
            cycle += 1
            if self.read:
                burst_ready = len(self._ends) < self.queue and self._go()
                self._signal(self.read, "burst__ready").value = int(burst_ready)
                ready_beat = bool(self._beats) and self._beats[0][0] <= cycle
                self._standing = self._standing or (ready_beat and self._go())
                self._signal(self.read, "data__valid").value = int(self._standing)
                if self._standing:
                    self._signal(self.read, "data__payload").value = self._beats[0][1]
            if self.write:
                write_ready = len(self._open) < self.queue and self._go()
                self._signal(self.write, "burst__ready").value = int(write_ready)
                data_ready = bool(self._open) and self._go()
                self._signal(self.write, "data__ready").value = int(data_ready)
                due = bool(self._acknowledges) and self._acknowledges[0] <= cycle
                self._acknowledging = self._acknowledging or (due and self._go())
                self._signal(self.write, "acknowledge__valid").value = int(self._acknowledging)
            await ReadOnly()
            if int(self.dut.rst.value):
                continue
            if self.read:
                if self._standing and int(self._signal(self.read, "data__ready").value):
                    self._standing = False
                    self._beats.popleft()
                    self.beats_read += 1
                    if self.beats_read == self._ends[0]:
                        self._ends.popleft()
                if burst_ready and int(self._signal(self.read, "burst__valid").value):
                    self._take_read(int(self._signal(self.read, "burst__payload").value), cycle)
            if self.write:
                self._write_cycle(write_ready, data_ready, cycle)

    def _take_read(self, payload: int, cycle: int) -> None:
        address, beats = self._burst(payload)
        self.read_bursts.append((address, beats))
        for i in range(beats):
            at = address + i * self.bus_bytes
            word = int.from_bytes(self.data[at : at + self.bus_bytes], "little")
            self._beats.append((cycle + self.latency, word))
        self._ends.append(self.beats_read + len(self._beats))

    def _write_cycle(self, write_ready: bool, data_ready: bool, cycle: int) -> None:
        if self._acknowledging and int(self._signal(self.write, "acknowledge__ready").value):
            self._acknowledging = False
            self._acknowledges.popleft()
        offered = int(self._signal(self.write, "data__valid").value)
        assert not (offered and not self._open), "a write beat before its burst"
        assert offered or not self._writing, "a write burst whose data was not at hand"
        if offered and data_ready:
            address, beats = self._open[0]
            word = int(self._signal(self.write, "data__payload").value)
            self.data[address : address + self.bus_bytes] = word.to_bytes(self.bus_bytes, "little")
            self._open[0] = [address + self.bus_bytes, beats - 1]
            self.beats_written += 1
            self._writing = beats > 1
            if beats == 1:
                self._open.popleft()
                self._acknowledges.append(cycle + self.latency)
        if write_ready and int(self._signal(self.write, "burst__valid").value):
            burst = self._burst(int(self._signal(self.write, "burst__payload").value))
            self.write_bursts.append(burst)
            self._open.append(list(burst))
