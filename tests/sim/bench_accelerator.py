"""The whole accelerator with its DRAM model, driven from Python over the register bus."""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from gateformer.compiler.host_model import layout_of
from gateformer.sim.simulate import GoldenRunner, load
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.image import ProgramImage
from gateformer.spec.isa import Engine
from gateformer.spec.registers import Register

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
IMAGE = ProgramImage.from_bytes(Path(os.environ["IMAGE"]).read_bytes())
ENGINES = (Engine.DMA, Engine.EPILOGUE, Engine.VECTOR)
SEED = 20


class Driver:
    """The host: registers over the bus, DRAM through the model's array."""

    def __init__(self, dut):
        self.dut = dut

    async def access(self, register, value=None):
        dut = self.dut
        write = value is not None
        dut.request_payload.value = (value or 0) << 7 | write << 6 | register
        dut.request_valid.value = 1
        await RisingEdge(dut.clk)
        while not int(dut.request_ready.value):
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.request_valid.value = 0
        if write:
            return None
        dut.response_ready.value = 1
        await RisingEdge(dut.clk)
        while not int(dut.response_valid.value):
            await RisingEdge(dut.clk)
        answer = int(dut.response_payload.value)
        await FallingEdge(dut.clk)
        dut.response_ready.value = 0
        return answer

    def write(self, space, address, content):
        assert space == "dram"
        beats = np.frombuffer(content, f"<u{CONFIG.bus_bytes}")
        array = self.dut.dram.storage.array
        for index, beat in enumerate(beats, address // CONFIG.bus_bytes):
            array[index].value = int(beat)

    def read(self, address, count):
        array = self.dut.dram.storage.array
        first = address // CONFIG.bus_bytes
        beats = [int(array[first + i].value) for i in range(count // CONFIG.bus_bytes)]
        return np.array(beats, f"<u{CONFIG.bus_bytes}").view(np.uint8)


async def monitor(dut, digests):
    """Collects the digest of every instruction that writes."""
    while True:
        await FallingEdge(dut.clk)
        retired = int(dut.retire.value)
        for index, engine in enumerate(ENGINES):
            if retired >> index & 1:
                digests[engine].append(int(getattr(dut, f"digest_{index}").value))


async def run(dut, stalls):
    """Runs one random input; every instruction and the outputs must equal golden's."""
    Clock(dut.clk, 2, "step").start()
    dut.request_valid.value = dut.response_ready.value = 0
    dut.dram_stall.value, dut.local_stall.value = stalls
    dut.rst.value = 1
    for _ in range(4):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    host, golden = Driver(dut), GoldenRunner(CONFIG, IMAGE)
    rng = np.random.default_rng(SEED)
    dut._log.info(f"seed {SEED}, stalls {stalls}")
    for machine in (host, golden):
        load(machine, CONFIG, IMAGE)
    for d in IMAGE.inputs:
        codes = layout_of(d, CONFIG).pack(rng.integers(-128, 128, (d.rows, d.cols))).tobytes()
        for machine in (host, golden):
            machine.write(d.space, d.address, codes)
    for register, value in (
        (Register.PROGRAM, IMAGE.program_address),
        (Register.LENGTH, SIZE_LIMIT),
        (Register.WINDOW_BASE, 0),
        (Register.WINDOW_SIZE, IMAGE.window_bytes),
        (Register.CONTROL, 1),
    ):
        await host.access(register, value)
    digests = {engine: [] for engine in ENGINES}
    cocotb.start_soon(monitor(dut, digests))
    while int(dut.running.value):
        await RisingEdge(dut.clk)
    for _ in range(4):
        await FallingEdge(dut.clk)
    assert await host.access(Register.STATUS) & 7 == 2
    assert digests == golden.start()
    for d in IMAGE.outputs:
        size = layout_of(d, CONFIG).words * CONFIG.word_bytes
        assert np.array_equal(host.read(d.address, size), golden.read(d.space, d.address, size))
    return await host.access(Register.CYCLES)


@cocotb.test()
async def a_program_equals_golden_with_and_without_stalls(dut):
    free = await run(dut, (0, 0))
    stalled = await run(dut, (100, 100))
    assert stalled > free
