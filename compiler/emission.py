"""What every operation needs to put instructions, constants and loads into a program."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.plan import Place, Plan, codes_of
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.steps import Load, Staging
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.isa import Instruction, Opcode, instruction

GROUP_ROWS = 32
"""Rows of an operation that one instruction computes: the grain of overlap between engines."""


def group_rows(config: AcceleratorConfig) -> int:
    """GROUP_ROWS made a multiple of the array's rows and of the scale records in a word."""
    unit = math.lcm(config.rows, config.word_bytes // 8)
    return max(1, GROUP_ROWS // unit) * unit


class Constants:
    """The image's data: every constant once, at word-aligned offsets."""

    def __init__(self, base: int, word_bytes: int) -> None:
        self.base = base
        self.word_bytes = word_bytes
        self.content = bytearray()
        self._seen: dict[bytes, int] = {}

    def add(self, data: np.ndarray) -> int:
        """Byte address of the data (uint8, padded to a word)."""
        key = data.tobytes()
        if key not in self._seen:
            self._seen[key] = self.append(data)
        return self._seen[key]

    def append(self, data: np.ndarray) -> int:
        """The same for data that the program overwrites: never shared."""
        address = self.base + len(self.content)
        self.content += data.tobytes() + bytes(-data.size % self.word_bytes)
        return address


@dataclass
class Emission:
    """The program so far, and what the steps of every operation need to extend it."""

    graph: QuantizedGraph
    config: AcceleratorConfig
    plan: Plan
    constants: Constants
    program: list[Instruction] = field(default_factory=list)
    present: dict[str, list[range]] = field(default_factory=dict)
    """Rows of inputs and residual constants that are in local memory already."""
    tables: dict[str, bytes] = field(default_factory=dict)
    """What the engines' tables hold at this point of the step order."""

    def __post_init__(self) -> None:
        self.word = self.config.word_bytes
        self.group = group_rows(self.config)
        self.staging = Staging(self.plan.staging)

    def put(self, opcode: Opcode, **values: int) -> None:
        self.program.append(instruction(opcode, **values))

    def copy_in(self, dram: int, local: int, words: int) -> None:
        """DMA of contiguous words, split into rows that size fields can hold."""
        row = min(words, SIZE_LIMIT)
        while words:
            row = min(row, words)
            rows = words // row
            self.put(
                Opcode.DMA_LOAD,
                rows=rows,
                words=row,
                local_address=local,
                local_stride=row,
                dram_address=dram,
                dram_stride=row * self.word,
            )
            local += rows * row
            dram += rows * row * self.word
            words -= rows * row

    def constant_load(
        self, data: np.ndarray, consume: Callable[[int], None], **options: Any
    ) -> Load:
        """A load of constant bytes; `consume(address)` reads them at a word address."""
        address = self.constants.add(data)
        words = words_of(data.size, 1, self.word)
        if self.config.dram == "none":
            return Load(None, consume, address=address // self.word, **options)

        def fetch(staging: int) -> None:
            self.copy_in(address, staging, words)

        return Load(fetch, consume, staging_words=words, **options)

    def table_load(
        self, name: str, data: np.ndarray, opcode: Opcode, count: int, **values: int
    ) -> list[Load]:
        """A load into an engine's table, or nothing where the table holds that already."""
        if self.tables.get(name) == data.tobytes():
            return []
        self.tables[name] = data.tobytes()
        field_name = "gain_address" if opcode is Opcode.NORM_GAIN else "table_address"

        def consume(address: int) -> None:
            self.put(opcode, count=count, **{field_name: address}, **values)

        return [self.constant_load(data, consume)]

    def record_load(self, data: np.ndarray) -> Load:
        """Scale records [n, 8] into the parameter ring."""

        def consume(address: int) -> None:
            self.put(Opcode.LOAD_P, count=len(data), p_address=address)

        words = words_of(len(data), 8, self.word)
        return self.constant_load(data.ravel(), consume, early=True, p_words=words)

    def tensor(self, view: View) -> QTensor:
        return self.graph.tensors[view.tensor]

    def layout(self, view: View) -> Layout:
        return Layout.of(self.tensor(view), self.word)

    def place(self, view: View) -> Place:
        return self.plan.local[view.tensor]

    def rows_of(self, view: View, row: int, rows: int) -> View:
        return View(view.tensor, view.row + row, rows, view.col, view.cols)

    def bring(self, view: View) -> None:
        """Emits the DMA of rows of an input or a residual constant that are not there yet."""
        tensor = self.tensor(view)
        if tensor.role not in (Role.INPUT, Role.CONSTANT):
            return
        if tensor.role is Role.INPUT and self.config.dram != "readwrite":
            return
        if self.config.dram == "none":
            return
        place = self.place(view)
        done = self.present.setdefault(view.tensor, [])
        missing = [
            row for row in range(view.row, view.row + view.rows) if not any(row in r for r in done)
        ]
        if not missing:
            return
        if tensor.role is Role.INPUT:
            base = self.plan.dram[tensor.name]
        else:
            base = self.constants.add(place.layout.pack(codes_of(tensor)))
        row_bytes = place.layout.row_words * self.word
        for part in _runs(missing):
            done.append(part)
            local = place.address + part.start * place.layout.row_words
            words = len(part) * place.layout.row_words
            self.copy_in(base + part.start * row_bytes, local, words)


def row_groups(rows: int, group: int) -> list[tuple[int, int]]:
    """(first row, rows) of consecutive groups."""
    return [(row, min(group, rows - row)) for row in range(0, rows, group)]


def _runs(numbers: list[int]) -> list[range]:
    """Consecutive runs in an ascending list."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs
