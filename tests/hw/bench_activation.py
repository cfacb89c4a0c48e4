"""The activation unit alone: fills, then every code through every lane."""

import json
import math
import os
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
LATENCY = int(os.environ["LATENCY"])
BITS, LANES = CONFIG.activation_bits, CONFIG.epilogue_lanes
IS_TABLE = CONFIG.gelu == "table"


async def fill(dut: Any, content: bytes, rng: Any) -> None:
    """A new table, with random pauses between its bytes."""
    dut.lookup.value = 0
    dut.fill_start.value = 1
    await FallingEdge(dut.clk)
    dut.fill_start.value = 0
    for byte in content:
        while rng.random() < 0.2:
            dut.fill_valid.value = 0
            dut.fill_byte.value = rng.getrandbits(8)
            await FallingEdge(dut.clk)
        dut.fill_valid.value = 1
        dut.fill_byte.value = byte
        await FallingEdge(dut.clk)
    dut.fill_valid.value = 0


async def check(dut: Any, model: Callable[[Any], Any]) -> None:
    """All codes, one a cycle; lane l starts with code l."""
    count = 1 << BITS
    codes = np.arange(-count // 2, count // 2)
    wanted = model(codes).tolist()
    dut.lookup.value = 1
    for cycle in range(count + LATENCY):
        packed = 0
        for lane in range(LANES):
            packed |= (int(codes[(cycle + lane) % count]) & count - 1) << BITS * lane
        dut.codes.value = packed
        await ReadOnly()
        if cycle >= LATENCY:
            results = int(dut.results.value)
            for lane in range(LANES):
                index = (cycle - LATENCY + lane) % count
                got = (results >> 8 * lane & 0xFF ^ 0x80) - 0x80
                assert got == wanted[index], (
                    f"lane {lane}, code {codes[index]}: {got} instead of {wanted[index]}"
                )
        await FallingEdge(dut.clk)


async def prepare(dut: Any) -> None:
    for signal in (dut.lookup, dut.fill_start, dut.fill_valid, dut.fill_byte, dut.codes):
        signal.value = 0
    await start(dut)


@cocotb.test(skip=not IS_TABLE)
async def tables(dut: Any) -> None:
    """Three tables after each other: an activation, its negative, a random one."""
    rng = make_rng(1)
    await prepare(dut)
    codes = np.arange(1 << BITS)
    signed = np.where(codes >> (BITS - 1), codes - (1 << BITS), codes)
    ramp = signed >> (BITS - 8)
    random = np.random.default_rng(1).integers(-128, 128, 1 << BITS)
    for table in (np.maximum(ramp, 0), -1 - ramp, random):
        entries = table.astype(np.int8)
        await fill(dut, entries.tobytes(), rng)
        await check(dut, lambda q, t=entries: t[arithmetic.activation_index(q, BITS)])


def gelu_parameters(scale: float, zero: int) -> tuple[int, int, int, int, int]:
    """I-BERT's parameters for codes of `scale` and an output that spans int8."""
    bound = math.floor(1.769 * math.sqrt(2) / scale)
    one = math.floor(2 / (0.2888 * scale**2))
    largest = scale * ((1 << (BITS - 1)) - 1)
    # q * (erf + one) is x / scale * 2 * one at most, and is to become about 240 codes.
    multiplier, selector = arithmetic.encode_scale(240 / (largest / scale * 2 * one))
    return bound, one, multiplier, selector, zero


@cocotb.test(skip=IS_TABLE)
async def polynomials(dut: Any) -> None:
    """Scales from coarse to fine, and parameters at the ends of their ranges."""
    rng = make_rng(2)
    await prepare(dut)
    half = 1 << (BITS - 1)
    sets = [gelu_parameters(x / half, zero) for x, zero in ((8, -122), (4, -120), (2, 0), (16, 5))]
    sets.append(gelu_parameters(4 / 128, -118))
    sets.append((4095, (1 << 20) - 1, 65535, 0, -(2**31)))
    sets.append((4095, 0, 65535, 0, 2**31 - 1))
    sets.append((0, (1 << 20) - 1, 1, 3, 0))
    for selector in range(4):
        numbers = (rng.randrange(4096), rng.randrange(1 << 20), rng.randrange(1, 65536))
        sets.append((*numbers, selector, rng.randrange(-128, 128)))
    for parameters in sets:
        content = arithmetic.pack_polynomial(*parameters).tobytes()
        # The last word of the parameters is filled up.
        await fill(dut, content + bytes(rng.choices(range(256), k=8)), rng)
        await check(dut, lambda q, p=parameters: arithmetic.polynomial_gelu(q, *p))
