"""The array engine whole: programs of products, local memory, and a reader of the sums."""

import json
import os
import random
from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LocalMemoryModel, StreamSource, make_rng, start, wait_until

from gateformer.hw.accumulator_buffer import AccumulatorRead
from gateformer.hw.array_engine import ArrayEngine
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Instruction, Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
ROWS, COLS, WORD = CONFIG.rows, CONFIG.cols, CONFIG.word_bytes
SETS = ROWS // CONFIG.epilogue_lanes
LATENCY = ArrayEngine(CONFIG).latency


def _payload(order: Instruction) -> int:
    return int.from_bytes(order.encode().tobytes(), "little")


@dataclass
class Tile:
    """What a tile must hold; cells outside the product are not compared."""

    sums: Any
    rows: int
    columns: int


class Program:
    """Instructions, the contents of local memory, and the tiles that must come."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words: list[int] = []
        self.load_a: list[int] = []
        self.load_b: list[int] = []
        self.array: list[int] = []
        self.tiles: list[Tile] = []
        self.steps = 0

    def _place(self, matrix: Any, *, clean: bool) -> tuple[int, int]:
        """Puts the rows in memory, words of junk between; returns address and stride."""
        count, k = matrix.shape
        length = -(-k // WORD)
        stride = length + self.rng.choice((0, 0, 1, 3))
        address = len(self.words) + self.rng.randrange(3)
        self.words += [self.rng.getrandbits(8 * WORD) for _ in range(count * stride + 8)]
        for row in range(count):
            data = [0 if clean else self.rng.getrandbits(8) for _ in range(length * WORD)]
            data[:k] = [int(value) & 0xFF for value in matrix[row]]
            for word in range(length):
                chunk = bytes(data[word * WORD : (word + 1) * WORD])
                self.words[address + row * stride + word] = int.from_bytes(chunk, "little")
        return address, stride

    def _matrix(self, count: int, k: int) -> Any:
        low, high = self.rng.choice(((-128, 127), (-128, -128), (-3, 3)))
        if k << 14 >= 1 << CONFIG.accumulator_bits - 1:
            low, high = -127, 127
        values = [self.rng.randint(low, high) for _ in range(count * k)]
        return np.array(values, np.int64).reshape(count, k)

    def block(self, n: int, k: int, heights: list[int], *, pieces: bool = True) -> None:
        """One block of n rows of B in one or more LOAD_B, used by a GEMM for each height."""
        b = self._matrix(n, k)
        first = 0
        while first < n or (n == 0 and first == 0):
            count = n - first
            if pieces and count > COLS and self.rng.random() < 0.5:
                count = COLS * self.rng.randint(1, (count - 1) // COLS)
            address, stride = self._place(b[first : first + count], clean=False)
            order = instruction(Opcode.LOAD_B, n=count, k=k, b_address=address, b_stride=stride)
            self.load_b.append(_payload(order))
            first += max(count, 1)
        for index, m in enumerate(heights):
            a = self._matrix(m, k)
            address, stride = self._place(a, clean=True)
            order = instruction(
                Opcode.GEMM,
                m=m,
                n=n,
                k=k,
                release_b=index == len(heights) - 1,
                a_address=address,
                a_stride=stride,
            )
            self.load_a.append(_payload(order))
            self.array.append(_payload(order))
            product = a @ b.T
            for i in range(0, m if k else 0, ROWS):
                for j in range(0, n, COLS):
                    sums = product[i : i + ROWS, j : j + COLS]
                    self.tiles.append(Tile(sums, *sums.shape))
                    self.steps += -(-k // CONFIG.lanes)


class Reader:
    """Reads and frees tiles as the epilogue does. gap: probability of a cycle without a read."""

    def __init__(self, dut: Any, tiles: list[Tile], rng: random.Random, gap: float) -> None:
        self.dut, self.tiles, self.rng, self.gap = dut, tiles, rng, gap
        self.read = 0
        self.first_valid: int | None = None
        self.cycle = 0
        dut.tiles__release.value = 0
        cocotb.start_soon(self._run())

    @property
    def done(self) -> bool:
        return self.read == len(self.tiles)

    async def _run(self) -> None:
        dut, width = self.dut, CONFIG.accumulator_bits
        due: dict[int, tuple[int, int, int]] = {}
        tile, cell = 0, 0
        while True:
            await FallingEdge(dut.clk)
            self.cycle += 1
            # tile_valid is a register: what it is now stands until the next rising edge.
            valid = int(dut.tiles__tile_valid.value)
            if valid and self.first_valid is None:
                self.first_valid = self.cycle
            active = valid and self.rng.random() >= self.gap
            group, column = divmod(cell, COLS)
            if not active:
                group, column = self.rng.randrange(SETS), self.rng.randrange(COLS)
            dut.tiles__set.value, dut.tiles__column.value = group, column
            dut.tiles__release.value = 0
            if active:
                assert tile < len(self.tiles), "more tiles than products"
                due[self.cycle + AccumulatorRead.SUMS_LATENCY] = (tile, group, column)
                cell += 1
                if cell == SETS * COLS:
                    dut.tiles__release.value = 1
                    tile, cell = tile + 1, 0
            await ReadOnly()
            if self.cycle in due:
                number, group, column = due.pop(self.cycle)
                expected = self.tiles[number]
                sums = int(dut.tiles__sums.value)
                for lane in range(CONFIG.epilogue_lanes):
                    row = group * CONFIG.epilogue_lanes + lane
                    if row < expected.rows and column < expected.columns:
                        value = sums >> width * lane & (1 << width) - 1
                        value -= (value >> (width - 1)) << width
                        wanted = int(expected.sums[row, column])
                        assert value == wanted, f"tile {number}, row {row}, column {column}"
                if (group, column) == (SETS - 1, COLS - 1):
                    self.read += 1


class Watch:
    """Counts the cycles of each state and remembers when the array was busy."""

    NAMES = ("busy", "wait_a", "wait_b", "wait_drain")

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.counts = dict.fromkeys(self.NAMES, 0)
        self.busy: list[int] = []
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        cycle = 0
        while True:
            await FallingEdge(self.dut.clk)
            cycle += 1
            await ReadOnly()
            states = {name: int(getattr(self.dut, name).value) for name in self.NAMES}
            assert sum(states.values()) <= 1, f"{states}"
            for name, value in states.items():
                self.counts[name] += value
            if states["busy"]:
                self.busy.append(cycle)


class Run:
    """A program at work on the dut."""

    def __init__(
        self,
        dut: Any,
        program: Program,
        rng: random.Random,
        *,
        gap: float = 0.0,
        reader_gap: float = 0.0,
        preload: bool = False,
    ) -> None:
        self.dut, self.program = dut, program
        LocalMemoryModel(
            dut,
            words=program.words,
            word_bytes=WORD,
            rng=rng,
            reads=("read_a", "read_b"),
            gap=gap,
        )
        self.sources = {
            name: StreamSource(dut, f"{name}__stream", rng, gap)
            for name in ("load_b", "load_a", "array")
        }
        self.watch = Watch(dut)
        self.reader = Reader(dut, program.tiles, rng, reader_gap)
        self.preload = preload

    async def finish(self, extra: int = 40) -> None:
        for name, source in self.sources.items():
            if name == "array" and self.preload:
                await wait_until(self.dut, lambda: self.sources["load_b"].idle)
                for _ in range(20):
                    await FallingEdge(self.dut.clk)
            source.queue.extend(getattr(self.program, name))
        await wait_until(
            self.dut, lambda: self.reader.done and all(s.idle for s in self.sources.values())
        )
        for _ in range(extra):
            await FallingEdge(self.dut.clk)
        assert self.watch.counts["busy"] == self.program.steps
        assert self.reader.done


def _random_program(rng: random.Random, blocks: int) -> Program:
    program = Program(rng)
    longest = CONFIG.k_max
    for _ in range(blocks):
        k = rng.choice((1, WORD - 1, WORD, WORD + 3, rng.randint(1, min(longest, 6 * WORD))))
        if rng.random() < 0.1:
            k = longest
        fit = CONFIG.b_depth // -(-k // WORD) * COLS
        n = min(rng.choice((1, COLS, 2 * COLS + 1, rng.randint(1, 5 * COLS))), fit)
        heights = [rng.choice((1, ROWS, ROWS + 1, rng.randint(1, 3 * ROWS)))]
        heights += [rng.randint(1, 2 * ROWS) for _ in range(rng.choice((0, 0, 1, 2)))]
        kind = rng.random()
        if kind < 0.08:
            k = 0
        elif kind < 0.16:
            n = 0
        elif kind < 0.35:
            heights[rng.randrange(len(heights))] = 0
        program.block(n, k, heights)
    return program


@cocotb.test()
async def random_without_stalls(dut: Any) -> None:
    rng = make_rng(11)
    await start(dut)
    await Run(dut, _random_program(rng, 40), rng).finish()


@cocotb.test()
async def random_with_stalls(dut: Any) -> None:
    rng = make_rng(12)
    await start(dut)
    await Run(dut, _random_program(rng, 40), rng, gap=0.4, reader_gap=0.3).finish()


@cocotb.test()
async def slow_memory(dut: Any) -> None:
    rng = make_rng(13)
    await start(dut)
    run = Run(dut, _random_program(rng, 15), rng, gap=0.85)
    await run.finish()
    assert run.watch.counts["wait_a"] and run.watch.counts["wait_b"]


@cocotb.test()
async def slow_drain(dut: Any) -> None:
    rng = make_rng(14)
    program = Program(rng)
    for _ in range(3):
        program.block(2 * COLS, 3, [ROWS * (CONFIG.accumulator_tiles // 2 + 2)])
    await start(dut)
    run = Run(dut, program, rng, reader_gap=0.8)
    await run.finish()
    assert run.watch.counts["wait_drain"]


@cocotb.test()
async def no_idle_cycle(dut: Any) -> None:
    """Between tiles, groups and instructions, once B is there and nothing stalls."""
    rng = make_rng(15)
    k = 8 * max(CONFIG.lanes, COLS * SETS // 8 * CONFIG.lanes, WORD * ROWS // 8)
    words = -(-k // WORD)
    # A group takes words * rows cycles to load and steps * tiles to use.
    tiles = min(16, CONFIG.b_depth // words)
    program = Program(rng)
    program.block(tiles * COLS, k, [8 * ROWS, ROWS, 3 * ROWS], pieces=False)
    await start(dut)
    run = Run(dut, program, rng, preload=True)
    await run.finish()
    busy = run.watch.busy
    assert busy[-1] - busy[0] + 1 == len(busy) == program.steps


@cocotb.test()
async def latency(dut: Any) -> None:
    rng = make_rng(16)
    program = Program(rng)
    program.block(COLS, 2 * WORD, [ROWS])
    await start(dut)
    run = Run(dut, program, rng)
    await run.finish()
    assert run.reader.first_valid is not None
    assert run.reader.first_valid - run.watch.busy[-1] == LATENCY


@cocotb.test()
async def short_tiles(dut: Any) -> None:
    """Tiles of fewer steps than columns still leave in order, one in cols cycles, or three."""
    rng = make_rng(17)
    program = Program(rng)
    program.block(6 * COLS, CONFIG.lanes, [4 * ROWS])
    await start(dut)
    run = Run(dut, program, rng, preload=True)
    await run.finish()
    starts = np.diff(run.watch.busy)
    assert starts.min() == max(COLS, 3)
