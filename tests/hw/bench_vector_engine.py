"""The vector engine whole: programs of all its instructions, in order, from and to local memory.

The memory is compared byte for byte at the completion of each instruction.
"""

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import LocalMemoryModel, StreamSource, make_rng, start

from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Instruction, Opcode, instruction

CONFIG = AcceleratorConfig.from_dict(json.loads(os.environ["CONFIG"]))
WORD = CONFIG.word_bytes
WORDS = 1 << 15


def ceil_words(size: int) -> int:
    return -(-size // WORD)


class Program:
    """Instructions, the memory before the first, and the memory after each."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.memory = self.numpy.integers(0, 256, WORDS * WORD, np.uint8)
        self.before = self.memory
        self.free = 1
        self.instructions: list[Instruction] = []
        self.after: list[Any] = []
        self.table = np.zeros(256, np.int64)
        self.gains = {bits: np.zeros((2, 0), np.int64) for bits in (8, 16)}

    def _reserve(self, words: int) -> int:
        """A block of words, after a gap; returns its address."""
        address = self.free + self.rng.randrange(3)
        self.free = address + words
        assert self.free <= WORDS, "the program needs more memory"
        return address

    def _stride(self, size: int) -> int:
        return ceil_words(size) + self.rng.choice((0, 0, 1, 5))

    def _source(self, rows: Any) -> dict[str, int]:
        """Puts the rows in memory; returns the address fields."""
        size = rows[0].nbytes if len(rows) else 0
        stride = self._stride(size)
        address = self._reserve(stride * len(rows))
        before = self.before
        for r, row in enumerate(rows):
            begin = (address + r * stride) * WORD
            # Inputs are in memory from the beginning.
            for memory in {id(m): m for m in (before, self.memory, *self.after)}.values():
                memory[begin : begin + size] = row.view(np.uint8)
        return {"source_address": address, "source_stride": stride}

    def _target(self, name: str, rows: int, size: int) -> dict[str, int]:
        stride = self._stride(size)
        return {f"{name}_address": self._reserve(stride * rows), f"{name}_stride": stride}

    def _write(self, byte: int, data: Any) -> None:
        data = np.ascontiguousarray(data).view(np.uint8)
        self.memory[byte : byte + len(data)] = data

    def _done(self, order: Instruction) -> None:
        self.instructions.append(order)
        self.after.append(self.memory)
        self.memory = self.memory.copy()

    def exp_table(self) -> None:
        slope = self.rng.uniform(0.005, 0.2)
        table = np.rint(127 * np.exp(-slope * np.arange(256))).astype(np.uint8)
        if self.rng.random() < 0.5:
            table[1:] = self.numpy.integers(0, 128, 255)
        self.table = table.astype(np.int64)
        address = self._source(table[None])["source_address"]
        self._done(instruction(Opcode.EXP_TABLE, count=256, table_address=address))

    def norm_gain(self, bits: int, channels: int) -> None:
        largest = 1 << self.rng.randrange(4, 16)
        gains = self.numpy.integers(-largest, largest, channels)
        biases = self.numpy.integers(-(1 << 31), 1 << 31, channels) >> self.rng.randrange(24)
        if channels > 2:
            biases[:2] = (1 << 31) - 1, -(1 << 31)
        self.gains[bits] = np.array([gains, biases])
        records = arithmetic.pack_gain_records(gains, biases).reshape(1, -1)
        address = self._source(records)["source_address"]
        order = instruction(
            Opcode.NORM_GAIN, count=channels, output16=int(bits == 16), gain_address=address
        )
        self._done(order)

    def softmax(
        self, rows: int, length: int, bound: int, *, causal: bool = False, scores: Any = None
    ) -> None:
        if scores is None:
            scores = self.numpy.integers(-128, 128, (rows, length), np.int8)
        padded = np.concatenate(
            [scores, self.numpy.integers(-128, 128, (rows, -length % WORD), np.int8)], axis=1
        )
        numerator = self.rng.getrandbits(self.rng.randrange(1, 33))
        fields = {
            **self._source(padded),
            **self._target("target", rows, length),
            "record_address": self._reserve(ceil_words(8 * rows)),
            "numerator": numerator,
        }
        if length:
            for r in range(rows):
                counted = min(length, bound + r * causal)
                values, total = arithmetic.softmax_row(scores[r], counted, self.table)
                word = np.zeros(ceil_words(length) * WORD, np.uint8)
                word[:length] = values
                self._write((fields["target_address"] + r * fields["target_stride"]) * WORD, word)
                multiplier, selector = arithmetic.reciprocal(numerator, total)
                record = arithmetic.pack_scale_records([0], multiplier, selector)
                self._write(fields["record_address"] * WORD + 8 * r, record[0])
        self._done(
            instruction(
                Opcode.SOFTMAX, rows=rows, length=length, bound=bound, causal=int(causal), **fields
            )
        )

    def norm_rows(self, rows: int, channels: int) -> Any:
        """Rows of all kinds: from constant to the widest, and a single outlier."""
        codes = np.zeros((rows, channels), np.int16)
        for r in range(rows):
            kind = self.rng.randrange(7)
            if kind < 3:
                deviation = 2 ** self.rng.uniform(0, 14)
                mean = self.rng.uniform(-3, 3) * deviation
                row = self.numpy.normal(mean, deviation, channels).clip(-32768, 32767)
            elif kind == 3:
                row = np.full(channels, self.rng.choice((0, 1, -32768, 32767, 1234)))
            elif kind == 4:
                row = self.numpy.choice((-32768, 32767), channels)
            elif kind == 5:
                row = np.full(channels, -32768)
                row[self.rng.randrange(channels)] = self.rng.choice((-32767, 0, 32767))
            else:
                row = self.numpy.integers(-32768, 32768, channels)
            codes[r] = row
        return codes

    def norm(self, rows: int, channels: int, *, write8: bool = True, write16: bool = True) -> None:
        codes = self.norm_rows(rows, channels) if channels else np.zeros((rows, 0), np.int16)
        pads = self.numpy.integers(-32768, 32768, (rows, -channels % (WORD // 2)), np.int16)
        epsilon = self.rng.choice((0, 1, 1000, self.rng.getrandbits(32), (1 << 32) - 1))
        fields = {
            **self._source(np.concatenate([codes, pads], axis=1)),
            **self._target("target8", rows, channels),
            **self._target("target16", rows, 2 * channels),
            "shift8": self.rng.randrange(4),
            "shift16": self.rng.randrange(4),
        }
        for r in range(rows if channels else 0):
            normalized = arithmetic.normalize_row(codes[r], epsilon)
            for bits, write, width, kind in (
                (8, write8, 8, np.int8),
                (16, write16, CONFIG.residual_bits, np.int16),
            ):
                if not write:
                    continue
                gains, biases = self.gains[bits][:, :channels]
                shift = arithmetic.NORM_SHIFTS[fields[f"shift{bits}"]]
                output = arithmetic.gain(normalized, gains, biases, shift, width).astype(kind)
                row = fields[f"target{bits}_address"] + r * fields[f"target{bits}_stride"]
                self._write(row * WORD, output)
        self._done(
            instruction(
                Opcode.NORM,
                rows=rows,
                channels=channels,
                write8=int(write8),
                write16=int(write16),
                epsilon=epsilon,
                **fields,
            )
        )

    async def run(self, dut: Any, *, gap: float = 0.0, late: bool = False) -> list[int]:
        """Runs the program and checks it; returns the cycles of each instruction.

        gap, late: see LocalMemoryModel."""
        words = [int.from_bytes(w.tobytes(), "little") for w in self.before.reshape(-1, WORD)]
        memory = LocalMemoryModel(
            dut,
            words=words,
            word_bytes=WORD,
            rng=self.rng,
            reads=("read",),
            writes=("write",),
            gap=gap,
            late=late,
        )
        source = StreamSource(dut, "instructions__stream", self.rng, gap)
        await start(dut)
        source.queue.extend(
            int.from_bytes(order.encode().tobytes(), "little") for order in self.instructions
        )
        return [await self._complete(dut, memory, i) for i in range(len(self.instructions))]

    async def _complete(self, dut: Any, memory: LocalMemoryModel, index: int) -> int:
        """Waits for the completion of one instruction and compares; returns its cycles."""
        order = self.instructions[index]
        cycles = 0
        offers: dict[str, int] = {}
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            valid = int(dut.instructions__stream__valid.value)
            ready = int(dut.instructions__stream__ready.value)
            assert not ready or int(dut.busy.value)
            for port in ("read", "write"):
                request = f"{port}__request"
                offered = int(getattr(dut, f"{request}__valid").value)
                if port in offers:
                    assert offered, f"{request}: valid was withdrawn"
                    payload = int(getattr(dut, f"{request}__payload").value)
                    assert payload == offers.pop(port), f"{request}: the payload changed"
                if offered and not int(getattr(dut, f"{request}__ready").value):
                    offers[port] = int(getattr(dut, f"{request}__payload").value)
            cycles += valid
            assert cycles < 60_000, f"{order} does not complete"
            if valid and ready:
                break
        await FallingEdge(dut.clk)
        await ReadOnly()
        found = b"".join(word.to_bytes(WORD, "little") for word in memory.words)
        expected = self.after[index].tobytes()
        if found != expected:
            byte = next(i for i in range(len(found)) if found[i] != expected[i])
            raise AssertionError(
                f"instruction {index}: {order}: byte {byte % WORD} of word {byte // WORD} is "
                f"{found[byte]} instead of {expected[byte]}"
            )
        return cycles


def mixed(rng: random.Random, count: int) -> Program:
    """A random program of all instructions."""
    program = Program(rng)
    channels = rng.randrange(1, CONFIG.norm_length + 1)
    program.exp_table()
    program.norm_gain(8, CONFIG.norm_length)
    program.norm_gain(16, CONFIG.norm_length)
    for _ in range(count):
        choice = rng.randrange(10)
        if choice < 5:
            length = rng.randrange(1, min(CONFIG.softmax_length, 96) + 1)
            bound = rng.choice((0, 1, length, rng.randrange(length + 1), 4095))
            program.softmax(rng.randrange(1, 7), length, bound, causal=rng.random() < 0.5)
        elif choice < 8:
            channels = rng.randrange(1, min(CONFIG.norm_length, 96) + 1)
            outputs = rng.choice(((True, True), (True, False), (False, True)))
            program.norm(rng.randrange(1, 6), channels, write8=outputs[0], write16=outputs[1])
        elif choice == 8:
            program.exp_table()
        else:
            bits = rng.choice((8, 16))
            filled = rng.randrange(1, CONFIG.norm_length + 1)
            kept = program.gains[bits][:, filled:]
            program.norm_gain(bits, filled)
            program.gains[bits] = np.concatenate([program.gains[bits], kept], axis=1)
    return program


DURATIONS: list[int] = []


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.3, 0.7])
async def same_program(dut: Any, gap: float) -> None:
    """Stalls cost time and change nothing else."""
    DURATIONS.append(sum(await mixed(make_rng(1), 16).run(dut, gap=gap)))
    assert sorted(set(DURATIONS)) == DURATIONS


@cocotb.test()
@cocotb.parametrize(seed=[2, 3], gap=[0.0, 0.5])
async def programs(dut: Any, seed: int, gap: float) -> None:
    await mixed(make_rng(seed), 24).run(dut, gap=gap, late=True)


def without_work(rng: random.Random) -> "Program":
    """Instructions with sizes of 0 or without outputs, between two with work."""
    program = Program(rng)
    program.exp_table()
    program.softmax(0, 8, 8)
    program.softmax(3, 0, 0)
    program.norm(0, 8)
    program.norm(3, 0)
    program.norm(2, 8, write8=False, write16=False)
    program._done(instruction(Opcode.EXP_TABLE))
    program._done(instruction(Opcode.NORM_GAIN))
    program.softmax(2, 8, 8)
    return program


@cocotb.test()
async def nothing_to_do(dut: Any) -> None:
    """Sizes of 0 write nothing and end at once."""
    program = without_work(make_rng(5))
    cycles = await program.run(dut)
    assert all(count <= 7 for count in cycles[1:-1]), cycles
