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
TIMES = json.loads(os.environ["TIMES"])
BITS = {"int8": 8, "int16": CONFIG.residual_bits, "activation": CONFIG.activation_bits, "int32": 16}
MODES = {"int8": 0, "activation": 1, "int16": 2, "int32": 6}


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


def wanted(vectors: Vectors, mode: str, activated: Any, upper: Any) -> tuple[Any, Any]:
    """(codes as signed 17-bit numbers, outputs as unsigned 16-bit ones)."""
    if mode == "int32":
        halves = vectors.total >> np.where(upper, 16, 0) & 0xFFFF
        return halves, halves
    scaled = arithmetic.scale(vectors.total, vectors.multipliers, vectors.selectors)
    codes = arithmetic.saturate(scaled, BITS[mode])
    if mode == "int16":
        results = arithmetic.residual_add(codes, vectors.residuals, CONFIG.residual_bits)
        return codes + vectors.residuals, results & 0xFFFF
    byte = (activated if mode == "activation" else codes) & 0xFF
    return codes, byte << 8 | byte


async def run(dut: Any, vectors: Vectors, mode: str) -> None:
    """Sends the vectors, one a cycle, and compares all outputs."""
    count = len(vectors.sums)
    rng = np.random.default_rng(count)
    activated = rng.integers(0, 256, count)
    upper = rng.integers(0, 2, count)
    codes, outputs = wanted(vectors, mode, activated, upper)
    await FallingEdge(dut.clk)
    dut.mode.value = MODES[mode]
    records = [
        (int(b) & 0xFFFFFFFF) | int(m) << 32 | int(s) << 48
        for b, m, s in zip(vectors.biases, vectors.multipliers, vectors.selectors, strict=True)
    ]
    # The bits of an addend come from either half.
    from_first = rng.integers(0, 1 << 32, count)
    addends = [
        (int(a) & int(f)) | (int(a) & ~int(f) & 0xFFFFFFFF) << 32
        for a, f in zip(vectors.addends, from_first, strict=True)
    ]
    inputs = (
        (dut.sum, vectors.sums.tolist(), 0),
        (dut.upper, upper.tolist(), 0),
        (dut.record, records, 0),
        (dut.addend, addends, 0),
        (dut.residual, vectors.residuals.tolist(), TIMES["residual"]),
        (dut.activated, (activated * (mode == "activation")).tolist(), TIMES["activated"]),
    )
    code_mask = 0xFFFF if mode == "int32" else 0x1FFFF
    checks = (
        (dut.code, code_mask, (codes & code_mask).tolist(), TIMES["code"]),
        (dut.output, 0xFFFF, outputs.tolist(), TIMES["output"]),
    )
    for cycle in range(count + TIMES["output"]):
        await FallingEdge(dut.clk)
        for signal, values, time in inputs:
            if 0 <= cycle - time < count:
                signal.value = values[cycle - time]
        await ReadOnly()
        for signal, mask, values, time in checks:
            index = cycle - time
            if 0 <= index < count:
                got = int(signal.value) & mask
                assert got == values[index], (
                    f"{signal._name}: {got:x} instead of {values[index]:x} for "
                    f"{[int(v[index]) for v in vectors]}, {mode}, upper {upper[index]}"
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
        for bits in BITS.values():
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
@cocotb.parametrize(mode=list(MODES))
async def corner_cases(dut: Any, mode: str) -> None:
    await start(dut)
    vectors = corners()
    await run(dut, vectors if mode == "int16" else without_residual(vectors), mode)


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
        await run(dut, vectors, "int16")


@cocotb.test()
@cocotb.parametrize(mode=list(MODES))
async def random_cases(dut: Any, mode: str) -> None:
    await start(dut)
    vectors = random_vectors(list(MODES).index(mode), 6000)
    await run(dut, vectors if mode == "int16" else without_residual(vectors), mode)
