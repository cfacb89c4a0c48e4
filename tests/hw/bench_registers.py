"""The register map through the bus."""

import json
import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LocalMemoryModel, StreamSink, StreamSource, make_rng, start, wait_until

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.registers import IDENTITY, Counter, Register

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
WRITE_ONLY = (Register.LENGTH, Register.WINDOW_BASE, Register.WINDOW_SIZE)
HAS_LOCAL = CONFIG.dram != "readwrite"
STORED = {
    Register.PROGRAM: CONFIG.dram_mib * (1 << 20) - 1,
    Register.LENGTH: 0x000F0FFF,
    Register.WINDOW_BASE: CONFIG.dram_mib * (1 << 20) - 1,
    Register.WINDOW_SIZE: CONFIG.dram_mib * (2 << 20) - 1,
    Register.COUNTER_SELECT: (1 << (len(Counter) - 1).bit_length()) - 1,
}


class Host:
    def __init__(self, dut: Any, seed: int, gap: float) -> None:
        rng = make_rng(seed)
        self.dut = dut
        self.requests = StreamSource(dut, "bus__request", rng, gap)
        self.responses = StreamSink(dut, "bus__response", rng, gap)

    async def write(self, address: int, value: int) -> None:
        self.requests.queue.append(address | 1 << 6 | value << 7)
        await wait_until(self.dut, lambda: self.requests.idle)

    async def read(self, address: int) -> int:
        self.responses.received.clear()
        self.requests.queue.append(address)
        await wait_until(self.dut, lambda: bool(self.responses.received))
        return self.responses.received[0]


async def prepare(dut: Any, seed: int, gap: float = 0.5) -> Host:
    for name in ("running", "done", "error", "code", "engine", "error_pc", "value"):
        getattr(dut, name).value = 0
    dut.settled.value = 1
    host = Host(dut, seed, gap)
    await start(dut)
    return host


@cocotb.test()
async def stored_registers(dut: Any) -> None:
    """Writable registers keep their bits and drive their outputs; the others ignore writes."""
    host = await prepare(dut, 3)
    rng = make_rng(4)
    values = dict.fromkeys(STORED, 0)
    for _ in range(150):
        address = rng.randrange(64)
        value = rng.getrandbits(32)
        if address not in (Register.CONTROL, Register.LOCAL_DATA, Register.LOCAL_ADDRESS):
            await host.write(address, value)
            if address in STORED:
                values[Register(address)] = value & STORED[Register(address)]
        for register, stored in values.items():
            due = 0 if register in WRITE_ONLY else stored
            assert await host.read(register) == due, register
        await FallingEdge(dut.clk)
        assert int(dut.program.value) == values[Register.PROGRAM]
        assert int(dut.length.value) == values[Register.LENGTH] & 0xFFF
        assert int(dut.sample.value) == values[Register.LENGTH] >> 16
        assert int(dut.window_base.value) == values[Register.WINDOW_BASE]
        assert int(dut.window_size.value) == values[Register.WINDOW_SIZE]
    assert await host.read(Register.IDENTITY) == IDENTITY
    assert await host.read(Register.CONFIG_HASH) == CONFIG.hash
    assert await host.read(Register.CONTROL) == 0
    for address in range(len(Register), 64):
        assert await host.read(address) == 0


@cocotb.test()
async def status_and_control(dut: Any) -> None:
    """STATUS shows its fields; a start while running is dropped; pulses last one cycle."""
    host = await prepare(dut, 5)
    rng = make_rng(6)
    pulses = {"start": 0, "stop": 0}

    async def count() -> None:
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            for name in pulses:
                pulses[name] += int(getattr(dut, name).value)

    cocotb.start_soon(count())
    starts = stops = 0
    for _ in range(100):
        await FallingEdge(dut.clk)
        fields = {
            "running": (0, 1), "done": (1, 1), "error": (2, 1), "code": (4, 4), "engine": (8, 3)
        }  # fmt: skip
        status = 0
        for name, (low, width) in fields.items():
            value = rng.getrandbits(width)
            getattr(dut, name).value = value
            status |= value << low
        pc = rng.getrandbits(24)
        dut.error_pc.value = pc
        control = rng.getrandbits(2) | rng.getrandbits(30) << 2
        await host.write(Register.CONTROL, control)
        starts += control & ~status & 1
        stops += control >> 1 & 1
        assert await host.read(Register.STATUS) == status
        assert await host.read(Register.ERROR_PC) == pc
    assert pulses == {"start": starts, "stop": stops}


@cocotb.test()
async def counters(dut: Any) -> None:
    """A counter is read through `select`, two cycles later, and not before it has settled."""
    host = await prepare(dut, 7)
    rng = make_rng(8)
    totals = [rng.getrandbits(32) for _ in range(32)]

    async def memory() -> None:
        pipe = [0, 0]
        while True:
            await FallingEdge(dut.clk)
            dut.value.value = pipe.pop(0)
            await ReadOnly()
            pipe.append(totals[int(dut.select.value)] if int(dut.settled.value) else 0)

    cocotb.start_soon(memory())
    for counter in Counter:
        await host.write(Register.COUNTER_SELECT, counter)
        assert await host.read(Register.COUNTER) == totals[counter]
        assert await host.read(Register.CYCLES) == totals[len(Counter)]
    dut.settled.value = 0
    host.requests.queue.append(int(Register.CYCLES))
    host.responses.received.clear()
    for _ in range(100):
        await FallingEdge(dut.clk)
        assert not host.responses.received
    dut.settled.value = 1
    await wait_until(dut, lambda: bool(host.responses.received))
    assert host.responses.received == [totals[len(Counter)]]


@cocotb.test(skip=not HAS_LOCAL)
async def local_memory(dut: Any) -> None:
    """LOCAL_DATA reads and writes 32 bits at LOCAL_ADDRESS, which moves on."""
    host = await prepare(dut, 9)
    rng = make_rng(10)
    words = [0] * CONFIG.local_words
    LocalMemoryModel(
        dut,
        words=words,
        word_bytes=CONFIG.word_bytes,
        rng=rng,
        reads=["read"],
        writes=["write"],
        gap=0.5,
    )
    parts = CONFIG.word_bytes // 4
    model: dict[int, int] = {}
    for _ in range(40):
        first = rng.randrange(CONFIG.local_bytes // 4 - 8)
        await host.write(Register.LOCAL_ADDRESS, 4 * first)
        assert await host.read(Register.LOCAL_ADDRESS) == 4 * first
        for place in range(first, first + 8):
            model[place] = rng.getrandbits(32)
            await host.write(Register.LOCAL_DATA, model[place])
        assert await host.read(Register.LOCAL_ADDRESS) == 4 * first + 32
        await host.write(Register.LOCAL_ADDRESS, 4 * first)
        for place in range(first, first + 8):
            assert await host.read(Register.LOCAL_DATA) == model[place]
    for place, value in model.items():
        assert words[place // parts] >> 32 * (place % parts) & 0xFFFFFFFF == value


@cocotb.test(skip=HAS_LOCAL)
async def no_local_memory(dut: Any) -> None:
    """Without the way to local memory its registers read 0."""
    host = await prepare(dut, 11)
    await host.write(Register.LOCAL_ADDRESS, 64)
    await host.write(Register.LOCAL_DATA, 5)
    assert await host.read(Register.LOCAL_ADDRESS) == 0
    assert await host.read(Register.LOCAL_DATA) == 0
