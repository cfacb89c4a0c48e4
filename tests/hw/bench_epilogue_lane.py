"""One scaling lane: corner cases of every adder, rounding and saturation, then random ones."""

import itertools
import json
import os
from typing import Any, NamedTuple

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import start

from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
RESIDUAL_TIME, CODE_TIME, RESULT_TIME = json.loads(os.environ["TIMES"])
ADDEND_TIME, TOTAL_TIME = 1, 2
MODES = {(0, 0): 8, (0, 1): CONFIG.residual_bits, (1, 0): CONFIG.activation_bits}


class Vectors(NamedTuple):
    """Inputs of the lane, an array each."""

    sums: Any
    biases: Any
    multipliers: Any
    selectors: Any
    addends: Any
    residuals: Any

    @property
    def total(self) -> Any:
        return arithmetic.wrap32(self.sums + self.biases + self.addends)


async def run(dut: Any, vectors: Vectors, activation: int, wide: int) -> None:
    """Sends the vectors, one a cycle, and compares all outputs."""
    bits = MODES[activation, wide]
    scaled = arithmetic.scale(vectors.total, vectors.multipliers, vectors.selectors)
    codes = arithmetic.saturate(scaled, bits)
    added = codes + vectors.residuals
    results = arithmetic.residual_add(codes, vectors.residuals, CONFIG.residual_bits)
    await FallingEdge(dut.clk)
    dut.activation.value = activation
    dut.wide.value = wide
    records = [
        (int(b) & 0xFFFFFFFF) | int(m) << 32 | int(s) << 48
        for b, m, s in zip(vectors.biases, vectors.multipliers, vectors.selectors, strict=True)
    ]
    count = len(records)
    inputs = (
        (dut.sum, vectors.sums.tolist(), 0),
        (dut.record, records, 0),
        (dut.addend, vectors.addends.tolist(), ADDEND_TIME),
        (dut.residual, vectors.residuals.tolist(), RESIDUAL_TIME),
    )
    outputs = (
        (dut.total, vectors.total.tolist(), TOTAL_TIME),
        (dut.code, added.tolist(), CODE_TIME),
        (dut.result, results.tolist(), RESULT_TIME),
    )
    for cycle in range(count + RESULT_TIME):
        await FallingEdge(dut.clk)
        for signal, values, time in inputs:
            if 0 <= cycle - time < count:
                value = values[cycle - time]
                signal.value = value
        await ReadOnly()
        for signal, values, time in outputs:
            index = cycle - time
            if 0 <= index < count:
                got, want = signal.value.to_signed(), values[index]
                assert got == want, (
                    f"{signal._name}: {got} instead of {want} for "
                    f"{[int(v[index]) for v in vectors]}, activation {activation}, wide {wide}"
                )


def around(product: int, multiplier: int) -> list[int]:
    """Totals whose product with the multiplier lies next to `product`."""
    total = product // multiplier
    return [t for t in range(total - 1, total + 3) if -(2**31) <= t < 2**31]


def corners() -> Vectors:
    """Ties, both edges of each saturation and of the product, wrap of the 32-bit sums."""
    totals = []
    for selector, shift in enumerate(arithmetic.SCALE_SHIFTS):
        results = {0, 1, -1, 2, -2}
        for bits in MODES.values():
            top = 1 << (bits - 1)
            results |= {sign * top + i for sign in (1, -1) for i in range(-3, 4)}
        for multiplier in (1, 2, 3, 255, 1 << 12, 32767, 32768, 65535):
            for result in sorted(results):
                # The tie below `result`.
                tie = (result << shift) - (1 << (shift - 1))
                totals += [(t, multiplier, selector) for t in around(tie, multiplier)]
            extremes = (-(2**31), 2**31 - 1, -1, 0, 1, 131071, 131072, -131072, -131073)
            totals += [(t, multiplier, selector) for t in extremes]
        totals += [(t, 0, selector) for t in (-(2**31), 0, 2**31 - 1)]
    total, multipliers, selectors = np.array(totals, np.int64).T
    sum_top = 1 << (CONFIG.accumulator_bits - 1)
    sums = np.resize([0, 1, -1, sum_top - 1, -sum_top], len(total))
    addends = np.resize([0, 2**31 - 1, -(2**31), 0, 12345, -1, 2**30], len(total))
    residual_top = 1 << (CONFIG.residual_bits - 1)
    residuals = np.resize([0, 1, -1, residual_top - 1, -residual_top, 0, 77, -78, 0], len(total))
    biases = arithmetic.wrap32(total - sums - addends)
    return Vectors(sums, biases, multipliers, selectors, addends, residuals)


def random_vectors(seed: int, count: int) -> Vectors:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)

    def spread(bits: int) -> Any:
        """Signed numbers of `bits` bits of which small ones are as frequent as large ones."""
        wide = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), count)
        return wide >> rng.integers(0, bits, count)

    residual = spread(16) >> (16 - CONFIG.residual_bits)
    multipliers = rng.integers(0, 65536, count) >> rng.integers(0, 16, count)
    return Vectors(
        spread(CONFIG.accumulator_bits),
        spread(32),
        multipliers,
        rng.integers(0, 4, count),
        np.where(rng.integers(0, 2, count), spread(32), 0),
        residual,
    )


def without_residual(vectors: Vectors) -> Vectors:
    return vectors._replace(residuals=np.zeros_like(vectors.residuals))


@cocotb.test()
async def corner_cases(dut: Any) -> None:
    await start(dut)
    vectors = corners()
    for (activation, wide), _ in MODES.items():
        chosen = vectors if wide else without_residual(vectors)
        await run(dut, chosen, activation, wide)


@cocotb.test()
async def residuals_at_the_edges(dut: Any) -> None:
    """Scaled codes and residuals around zero and around both limits, all pairs."""
    await start(dut)
    top = 1 << (CONFIG.residual_bits - 1)
    edges = [v + i for v in (-top, 0, top - 1) for i in range(-2, 3)]
    pairs = np.array(list(itertools.product(edges, edges)), np.int64)
    codes, residuals = pairs[:, 0], arithmetic.saturate(pairs[:, 1], CONFIG.residual_bits)
    zeros = np.zeros_like(codes)
    multipliers = np.full_like(codes, 1 << 15)
    for half in (0, 1):
        # total * 2**15 / 2**16 = code, or code + 1/2.
        totals = 2 * codes + half
        vectors = Vectors(zeros, totals, multipliers, zeros, zeros, residuals)
        await run(dut, vectors, 0, 1)


@cocotb.test()
async def random_cases(dut: Any) -> None:
    await start(dut)
    for seed, (activation, wide) in enumerate(MODES):
        vectors = random_vectors(seed, 8000)
        await run(dut, vectors if wide else without_residual(vectors), activation, wide)
