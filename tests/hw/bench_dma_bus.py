"""Loads that follow each other, from a modelled SDRAM: how much of its bus they use."""

import json
import os
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import start

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
GAP = 2
"""Cycles from the end of an instruction to the next one, as a front end leaves them."""


class Clock:
    """Counts cycles."""

    def __init__(self, dut: Any) -> None:
        self.cycles = 0
        cocotb.start_soon(self._run(dut))

    async def _run(self, dut: Any) -> None:
        while True:
            await FallingEdge(dut.clk)
            self.cycles += 1


async def load(dut: Any, *, rows: int, words: int, address: int) -> int:
    """One DMA_LOAD of rows without gaps; returns the words that reached local memory."""
    fields = {"rows": rows, "words": words, "dram_address": address}
    strides = {"local_stride": words, "dram_stride": words * CONFIG.word_bytes}
    code = instruction(Opcode.DMA_LOAD, **fields, **strides).encode().tobytes()
    dut.instructions__stream__payload.value = int.from_bytes(code, "little")
    dut.instructions__stream__valid.value = 1
    written, done = 0, False
    while not done:
        await ReadOnly()
        written += int(dut.write__request__valid.value)
        done = bool(int(dut.instructions__stream__ready.value))
        await FallingEdge(dut.clk)
    dut.instructions__stream__valid.value = 0
    return written


@cocotb.test()
async def loads(dut: Any) -> None:
    """Weights as a schedule loads them, block after block: 93 % of the bus at least."""
    dut.instructions__stream__valid.value = 0
    dut.write__request__ready.value = 1
    dut.abort.value = 0
    await start(dut)
    beats = CONFIG.word_bytes // CONFIG.bus_bytes
    clock = Clock(dut)
    # Rows of as many beats on a wide bus as on a narrow one.
    wide = CONFIG.bus_bytes // 2
    for rows, words in ((1, 3072), (64, 48 * wide), (64, 24 * wide), (32, 96 * wide)):
        begin, moved = clock.cycles, 0
        for number in range(4):
            address = number * rows * words * CONFIG.word_bytes
            moved += await load(dut, rows=rows, words=words, address=address)
            for _ in range(GAP):
                await FallingEdge(dut.clk)
        cycles = clock.cycles - begin
        assert moved == 4 * rows * words
        share = moved * beats / cycles
        print(f"4 loads of {rows} x {words} words: {cycles} cycles, {share:.1%} of the bus")
        assert share >= 0.93, (rows, words)
