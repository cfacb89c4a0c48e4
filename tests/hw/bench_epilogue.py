"""The whole epilogue: programs of LOAD_P, ACTIVATION_TABLE and GEMM against the integer model.

The memory is compared word for word at the completion of each instruction.
"""

import json
import os
import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LocalMemoryModel, StreamSource, make_rng, start

from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Format, Instruction, Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
WORD = CONFIG.word_bytes
GROUP = WORD // 8
ROWS, COLS, LANES = CONFIG.rows, CONFIG.cols, CONFIG.epilogue_lanes
SUMS_LATENCY = 3
RECORDS = 1 << 13
"""First word of the scale records: outputs never reach it, since LOAD_P runs ahead of them."""
WORDS = 1 << 14


def ceil(value: int, unit: int) -> int:
    return -(-value // unit)


class Program:
    """Instructions of both engines, the sums they consume, and the memory after each."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.memory = self.numpy.integers(0, 256, WORDS * WORD, np.uint8)
        self.before = self.memory.copy()
        self.loads: list[Instruction] = []
        self.instructions: list[Instruction] = []
        self.after: list[Any] = []
        self.tiles: list[Any] = []
        self.outputs: list[int] = []
        self.ring = np.zeros((0, 8), np.uint8)
        self.free = 1
        self.record_free = RECORDS
        self.activation: Any = None

    def _block(self, rows: int, row_bytes: int) -> tuple[int, int]:
        """(address, stride) of a new block; blocks wrap around below the records."""
        stride = ceil(row_bytes, WORD) + self.rng.choice((0, 0, 1, 3))
        if self.free + rows * stride >= RECORDS:
            self.free = 1
        address = self.free
        self.free += rows * stride + self.rng.randrange(2)
        return address, stride

    def _rows(self, address: int, stride: int, rows: int, row_bytes: int) -> Any:
        begin = address * WORD + np.arange(rows)[:, None] * stride * WORD
        return begin + np.arange(row_bytes)

    def load(self, count: int, multiplier: int | None = None) -> None:
        """A LOAD_P of random records; multipliers are drawn when none is given."""
        rng = self.numpy
        biases = rng.integers(-(2**31), 2**31, count) >> rng.integers(0, 32, count)
        multipliers = rng.integers(0, 65536, count) >> rng.integers(0, 12, count)
        if multiplier is not None:
            multipliers = np.full(count, multiplier)
        records = arithmetic.pack_scale_records(biases, multipliers, rng.integers(0, 4, count))
        words = ceil(count, GROUP)
        padded = np.zeros((words * GROUP, 8), np.uint8)
        padded[:count] = records
        padded[count:] = rng.integers(0, 256, padded[count:].shape)
        address = self.record_free
        self.record_free += words
        assert self.record_free <= WORDS
        begin = address * WORD
        self.memory[begin : begin + padded.size] = padded.reshape(-1)
        self.before[begin : begin + padded.size] = padded.reshape(-1)
        self.ring = np.concatenate([self.ring, padded])
        self.loads.append(instruction(Opcode.LOAD_P, count=count, p_address=address))

    def table(self) -> None:
        """An ACTIVATION_TABLE of random contents (or parameters)."""
        rng = self.numpy
        bits = CONFIG.activation_bits
        if CONFIG.gelu == "table":
            entries = rng.integers(-128, 128, 1 << bits).astype(np.int8)
            content = entries.view(np.uint8)
            self.activation = lambda codes: entries[arithmetic.activation_index(codes, bits)]
        else:
            scale = self.rng.choice((8.0, 4.0)) / (1 << (bits - 1))
            bound, one = int(1.769 * 2**0.5 / scale), int(2 / (0.2888 * scale**2))
            parameters = (bound, one, self.rng.randrange(1, 65536), self.rng.randrange(4))
            parameters += (self.rng.randrange(-128, 128),)
            content = arithmetic.pack_polynomial(*parameters)
            self.activation = lambda codes: arithmetic.polynomial_gelu(codes, *parameters)
        count = ceil(len(content), WORD) * WORD
        content = np.concatenate([content, np.zeros(count - len(content), np.uint8)])
        address = self.record_free
        self.record_free += count // WORD
        self.memory[address * WORD : address * WORD + count] = content
        self.before[address * WORD : address * WORD + count] = content
        self._append(instruction(Opcode.ACTIVATION_TABLE, count=count, table_address=address), 0)

    def _append(self, done: Instruction, outputs: int) -> None:
        self.instructions.append(done)
        self.after.append(self.memory.copy())
        self.outputs.append(outputs)

    def gemm(
        self,
        m: int,
        n: int,
        *,
        k: int = 8,
        form: int = Format.INT8,
        activation: int = 0,
        residual: int = 0,
        addend: int = 0,
        by_row: int = 0,
        release: int = 0,
        in_place: bool = False,
    ) -> None:
        """Appends a GEMM with random sums; in_place: the residual or addend is where the output
        goes."""
        out_address, out_stride = self._block(m, n << form)
        fields: dict[str, int] = {
            "m": m,
            "n": n,
            "k": k,
            "format": form,
            "activation": activation,
            "residual": residual,
            "addend": addend,
            "by_row": by_row,
            "release_p": release,
            "out_address": out_address,
            "out_stride": out_stride,
        }
        rng = self.numpy
        if m and n and k:
            top = 1 << (CONFIG.accumulator_bits - 1)
            padded = (ceil(m, ROWS) * ROWS, ceil(n, COLS) * COLS)
            sums = rng.integers(-top, top, padded) >> rng.integers(0, 20, padded)
            for row in range(0, m, ROWS):
                for column in range(0, n, COLS):
                    self.tiles.append(sums[row : row + ROWS, column : column + COLS].tolist())
            total = sums[:m, :n]
            records = self.ring[: m if by_row else n]
            biases = records[:, 0:4].copy().view("<i4").astype(np.int64)
            multipliers = records[:, 4:6].copy().view("<u2").astype(np.int64)
            selectors = records[:, 6:7].astype(np.int64)
            if not by_row:
                biases, multipliers, selectors = biases.T, multipliers.T, selectors.T
            total = total + biases
            if addend:
                address, stride = (
                    (out_address, out_stride)
                    if in_place and form == Format.INT32
                    else self._block(m, 4 * n)
                )
                fields |= {"addend_address": address, "addend_stride": stride}
                places = self._rows(address, stride, m, 4 * n)
                total = total + self.memory[places].copy().view("<i4").astype(np.int64)
            total = arithmetic.wrap32(total)
            codes = arithmetic.scale(total, multipliers, selectors)
            if form == Format.INT32:
                result = total
            elif activation:
                result = self.activation(arithmetic.saturate(codes, CONFIG.activation_bits))
            elif form == Format.INT8:
                result = arithmetic.saturate(codes, 8)
            else:
                result = arithmetic.saturate(codes, CONFIG.residual_bits)
                if residual:
                    address, stride = (
                        (out_address, out_stride) if in_place else self._block(m, 2 * n)
                    )
                    fields |= {"residual_address": address, "residual_stride": stride}
                    places = self._rows(address, stride, m, 2 * n)
                    codes = self.memory[places].copy().view("<i2").astype(np.int64)
                    result = arithmetic.residual_add(result, codes, CONFIG.residual_bits)
            kind = ("<i1", "<i2", "<i4")[form]
            places = self._rows(out_address, out_stride, m, n << form)
            self.memory[places] = result.astype(kind).view(np.uint8)
        if release:
            self.ring = self.ring[ceil(m if by_row else n, GROUP) * GROUP :]
        self._append(instruction(Opcode.GEMM, **fields), m * n)

    def random_gemm(self, *, release: int, need: int) -> None:
        """A GEMM of random kind that needs at most `need` records (all of them if it releases)."""
        rng = self.rng
        by_row = rng.randrange(2)
        sizes = [rng.randint(1, 3 * ROWS + 1), rng.randint(1, 5 * COLS + 1)]
        sizes[0 if by_row else 1] = need if release else rng.randint(1, need)
        if rng.random() < 0.08:
            sizes[1 if by_row else 0] = 0
        form = rng.choice(tuple(Format))
        self.gemm(
            *sizes,
            k=rng.choice((8, 8, 8, 8, 0)) if rng.random() < 0.3 else 64,
            form=form,
            activation=int(form == Format.INT8 and bool(self.activation) and rng.random() < 0.5),
            residual=int(form == Format.INT16 and rng.random() < 0.7),
            addend=int(rng.random() < 0.35),
            by_row=by_row,
            release=release,
            in_place=rng.random() < 0.5,
        )

    def random(self, blocks: int) -> None:
        for _ in range(blocks):
            if self.rng.random() < (0.4 if self.activation else 0.8):
                self.table()
                if self.rng.random() < 0.2:
                    self.table()
            need = self.rng.randint(1, min(3 * max(ROWS, COLS) + 2, CONFIG.p_depth // 2))
            # A part that another follows ends with a word.
            part = ceil(need // 2, GROUP) * GROUP
            if 0 < part < need and self.rng.random() < 0.4:
                self.load(part)
                self.load(need - part)
            else:
                self.load(need)
            for _ in range(self.rng.choice((0, 0, 1, 2))):
                self.random_gemm(release=0, need=need)
            self.random_gemm(release=1, need=need)


class Tiles:
    """The accumulator buffer: offers the tiles in order, checks how they are read."""

    def __init__(self, dut: Any, tiles: list[Any], rng: random.Random, gap: float) -> None:
        self.dut, self.rng, self.gap = dut, rng, gap
        self.tiles = deque(tiles)
        dut.tiles__tile_valid.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, bits = self.dut, CONFIG.accumulator_bits
        pipe: deque[int] = deque([0] * (SUMS_LATENCY - 1), SUMS_LATENCY)
        valid = False
        while True:
            await FallingEdge(dut.clk)
            valid = bool(self.tiles) and (valid or self.rng.random() >= self.gap)
            dut.tiles__tile_valid.value = int(valid)
            dut.tiles__sums.value = pipe[0]
            await ReadOnly()
            sums = self.rng.getrandbits(bits * LANES)
            if valid:
                first = int(dut.tiles__set.value) * LANES if ROWS > LANES else 0
                column = int(dut.tiles__column.value) if COLS > 1 else 0
                if first + LANES <= ROWS and column < COLS:
                    sums = 0
                    for lane in range(LANES):
                        value = self.tiles[0][first + lane][column]
                        sums |= (value & (1 << bits) - 1) << bits * lane
            pipe.append(sums)
            if int(dut.tiles__release.value):
                assert valid, "a tile was released that was not there"
                self.tiles.popleft()
                valid = False


def as_words(memory: Any) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in memory.reshape(-1, WORD)]


def payload(form: Instruction) -> int:
    return int.from_bytes(form.encode().tobytes(), "little")


async def run(dut: Any, program: Program, gap: float) -> list[int]:
    """Runs the program; returns the cycles of each instruction, from being offered to `ready`."""
    await start(dut)
    rng = program.rng
    memory = LocalMemoryModel(
        dut,
        words=as_words(program.before),
        word_bytes=WORD,
        rng=rng,
        reads=("read", "read_p"),
        writes=("write",),
        gap=gap,
    )
    tiles = Tiles(dut, program.tiles, rng, gap)
    loads = StreamSource(dut, "load_p__stream", rng, gap)
    source = StreamSource(dut, "instructions__stream", rng, gap)
    loads.queue.extend(map(payload, program.loads))
    source.queue.extend(map(payload, program.instructions))
    cycles, since, idle, seen = [], 0, 0, 0
    while source.sent < len(program.instructions) or loads.queue:
        await FallingEdge(dut.clk)
        since += 1
        idle += 1
        if len(memory.written) + source.sent + loads.sent + len(memory.asked) != seen:
            seen = len(memory.written) + source.sent + loads.sent + len(memory.asked)
            idle = 0
        assert idle < 3000, f"stuck at {program.instructions[source.sent]}"
        if source.sent > len(cycles):
            done = source.sent - 1
            want = as_words(program.after[done])
            if memory.words[:RECORDS] != want[:RECORDS]:
                wrong = [i for i in range(RECORDS) if memory.words[i] != want[i]]
                raise AssertionError(
                    f"instruction {done}: {program.instructions[done]}: word {wrong[0]} is "
                    f"{memory.words[wrong[0]]:x} instead of {want[wrong[0]]:x}, "
                    f"{len(wrong)} words differ"
                )
            cycles.append(since)
            since = 0
    assert not tiles.tiles, f"{len(tiles.tiles)} tiles are left"
    for _ in range(40):
        await FallingEdge(dut.clk)
    assert memory.words[:RECORDS] == as_words(program.memory)[:RECORDS]
    return cycles


@cocotb.test()
async def programs_without_stalls(dut: Any) -> None:
    program = Program(make_rng(1))
    program.random(40)
    await run(dut, program, 0.0)


@cocotb.test()
@cocotb.parametrize((("seed", "gap"), [(2, 0.2), (3, 0.5), (4, 0.8)]))
async def programs_with_stalls(dut: Any, seed: int, gap: float) -> None:
    program = Program(make_rng(seed))
    program.random(15)
    await run(dut, program, gap)


@cocotb.test()
async def every_kind(dut: Any) -> None:
    """Each format with each combination of its flags, by row and by column."""
    program = Program(make_rng(5))
    program.table()
    for form in Format:
        for flags in range(16):
            activation, residual, addend, by_row = (flags >> i & 1 for i in range(4))
            if (activation and form != Format.INT8) or (residual and form != Format.INT16):
                continue
            m, n = 2 * ROWS - 1, 2 * COLS + 1
            program.load(m if by_row else n)
            program.gemm(
                m, n, form=form, activation=activation, residual=residual, addend=addend,
                by_row=by_row, release=1, in_place=True,
            )  # fmt: skip
    await run(dut, program, 0.3)


@cocotb.test()
async def empty_instructions(dut: Any) -> None:
    """m, n or k of 0: no tile, no write, but records go."""
    program = Program(make_rng(6))
    for m, n, k in ((0, 5, 8), (5, 0, 8), (3, 5, 0), (0, 0, 0)):
        for by_row in (0, 1):
            if m if by_row else n:
                program.load(m if by_row else n)
            program.gemm(m, n, k=k, by_row=by_row, release=1)
    program.load(4)
    program.gemm(3, 4, release=1)
    await run(dut, program, 0.2)


@cocotb.test()
async def throughput(dut: Any) -> None:
    """epilogue_lanes outputs a cycle, INT32 half as many, or what the addresses leave."""
    program = Program(make_rng(7))
    program.table()
    n = min(16 * COLS, CONFIG.p_depth)
    m = 4 * ROWS
    program.load(n)
    kinds = [(form, 0, 0, 0) for form in Format]
    kinds += [(Format.INT8, 1, 0, 0), (Format.INT16, 0, 1, 0), (Format.INT32, 0, 0, 1)]
    for form, activation, residual, addend in kinds:
        program.gemm(m, n, form=form, activation=activation, residual=residual, addend=addend)
    cycles = (await run(dut, program, 0.0))[1:]
    for (form, activation, residual, addend), took in zip(kinds, cycles, strict=True):
        name = f"{Format(form).name} {activation=} {residual=} {addend=}"
        if CONFIG.multipliers == "serial":
            print(f"{name}: {took / (m * n):.1f} cycles an output")
            extra = 4 * (form == Format.INT32) + 10 * residual + 30 * addend
            assert took <= m * n * (20 + extra)
            continue
        tiles = m * n // (ROWS * COLS)
        # Each piece of a row takes one address a lane for each of its words, an INT32 two cycles; a
        # set takes two at least. Where a set is a whole tile, the pieces are words.
        size = max(form, Format.INT32 if addend else 0)
        pieces = max((COLS << size) / WORD, 1 if LANES < ROWS else 0)
        addresses = LANES * pieces * (1 + residual + addend)
        visits = COLS * (1 + (form == Format.INT32))
        ideal = tiles * ROWS // LANES * max(visits, addresses, 2)
        print(f"{name}: {took} / {ideal}")
        # A word of an operand takes 21 cycles from its step to its lane, and 16 are under way.
        assert took <= ideal * (21 / 16 if residual or addend else 1) + 50
