"""A row's constants against spec.arithmetic: from rows, and from sums that only just fit."""

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge
from cocotb.utils import get_sim_time
from drivers import make_rng, start

from gateformer.hw.vector_constants import CONSTANT_BITS, RESULT_SHIFT
from gateformer.spec.arithmetic import NORM_FRACTION, normalize_row, rsqrt
from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
LATENCY = int(os.environ["LATENCY"])
CLOCK_STEPS = 2
MASK = (1 << CONSTANT_BITS) - 1


def expected(count: int, total: int, squares: int, epsilon: int) -> tuple[int, int]:
    root, e = (int(x) for x in rsqrt(max(count * squares - total * total + epsilon, 1)))
    shift = e + 16 - NORM_FRACTION
    cut = shift % 4
    scaled = (root >> cut) << (RESULT_SHIFT - shift + cut)
    return count * scaled & MASK, (1 << (RESULT_SHIFT - 1)) - total * scaled & MASK


async def constants(
    dut: Any, rng: random.Random, count: int, total: int, squares: int, epsilon: int
) -> tuple[int, int]:
    """The results for one row; checks the time they take."""
    dut.start.value = 1
    dut.count.value = count
    dut.total.value = total
    dut.squares.value = squares
    await FallingEdge(dut.clk)
    dut.start.value = 0
    begin = get_sim_time("step")
    asked = [0, 0]
    for _ in range(LATENCY - 1):
        dut.epsilon_bit.value = epsilon >> asked.pop(0) & 1
        asked.append(int(dut.position.value))
        await FallingEdge(dut.clk)
    assert int(dut.busy.value)
    await FallingEdge(dut.clk)
    assert not int(dut.busy.value), (get_sim_time("step") - begin) // CLOCK_STEPS
    for _ in range(rng.randrange(3)):
        await FallingEdge(dut.clk)
    return int(dut.factor.value), int(dut.offset.value)


@cocotb.test()
async def sums(dut: Any) -> None:
    """Any sums that rows may have, of every order of magnitude."""
    rng = make_rng(1)
    await start(dut)
    for _ in range(600):
        count = rng.randrange(1, CONFIG.norm_length + 1)
        limit = count << rng.randrange(16)
        total = rng.randrange(-limit, limit)
        # Squares sum up to total**2 / count at least and 2**30 * count at most.
        least = -(-total * total // count)
        squares = min(least + rng.getrandbits(rng.randrange(1, 41)), count << 30)
        epsilon = rng.getrandbits(rng.randrange(1, 33)) * rng.randrange(2)
        found = await constants(dut, rng, count, total, squares, epsilon)
        assert found == expected(count, total, squares, epsilon), (count, total, squares, epsilon)


@cocotb.test()
async def roots(dut: Any) -> None:
    """Every table entry's interval, and the smallest variances."""
    rng = make_rng(2)
    await start(dut)
    for epsilon in (*range(65), *range(1 << 14, 1 << 16, 101), (1 << 32) - 1):
        found = await constants(dut, rng, 1, 1, 1, epsilon)
        assert found == expected(1, 1, 1, epsilon), epsilon


@cocotb.test()
async def rows(dut: Any) -> None:
    """The constants give what spec.arithmetic.normalize_row does."""
    rng = make_rng(3)
    numpy = np.random.default_rng(rng.getrandbits(32))
    await start(dut)
    length = CONFIG.norm_length
    extreme = np.full(length, -(1 << 15), np.int16)
    extreme[: length // 2] = (1 << 15) - 1
    for codes in (
        np.zeros(length, np.int16),
        np.full(length, -(1 << 15), np.int16),
        extreme,
        *((numpy.normal(0, 2.0**k, length) + 3 * k).astype(np.int16) for k in range(13)),
    ):
        total, squares = int(codes.sum(dtype=np.int64)), int((codes.astype(np.int64) ** 2).sum())
        epsilon = rng.getrandbits(rng.randrange(1, 33))
        factor, offset = await constants(dut, rng, length, total, squares, epsilon)
        normalized = [((factor * int(x) + offset) & MASK) >> RESULT_SHIFT for x in codes]
        assert np.array_equal(
            np.array(normalized, np.uint16).view(np.int16), normalize_row(codes, epsilon)
        )
