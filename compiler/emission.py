"""What every operation needs to put instructions, constants and loads into a program."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateformer.compiler.constants import Constants
from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.plan import Plan, codes_of
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.runtime_sizes import Sizes
from gateformer.compiler.steps import Load, Step, Store
from gateformer.compiler.words import Words
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.isa import Instruction, Opcode, instruction


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix as an instruction names them; address() is known when it is emitted. load:
    what brings them, where they pass through staging."""

    address: Callable[[], int]
    stride: int
    load: Load | None = None


@dataclass
class Emission:
    """The program so far, and what the steps of every operation need to extend it."""

    graph: QuantizedGraph
    config: AcceleratorConfig
    plan: Plan
    constants: Constants
    program: list[Instruction] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    operation: int = 0
    """Index of the operation whose steps are being made."""
    tables: dict[str, bytes] = field(default_factory=dict)
    """What the engines' tables hold at this point of the step order."""

    def __post_init__(self) -> None:
        self.word = self.config.word_bytes
        self.residency = self.plan.residency
        self.kept = [0] * len(self.graph.operations)
        """Words of staging that each operation keeps for what several of its steps read."""
        self._present: dict[str, np.ndarray] = {}
        """For each input in local memory, which rows were brought."""
        self._places: dict[str, int] = {}
        """For each input in local memory, the last step before its place is its own."""
        self._written: dict[str, np.ndarray] = {}
        """For each tensor, the last step that writes each row, in DRAM or in local memory."""

    @property
    def room(self) -> int:
        """Words of staging while the current operation runs."""
        return self.plan.staging.stop - self.plan.floors[self.operation]

    @property
    def slots(self) -> list[int]:
        """For each operation, the first word of those that it keeps."""
        return [self.plan.staging.stop - kept for kept in self.kept]

    @property
    def bounds(self) -> list[Words]:
        """For each operation, the words of staging that it does not keep."""
        return [free.below(slots) for free, slots in zip(self.plan.free, self.slots, strict=True)]

    def new_step(self) -> Step:
        """A step of the current operation, to be filled in; it is the next one."""
        step = Step(self.operation)
        self.steps.append(step)
        return step

    def put(self, opcode: Opcode, **values: int) -> None:
        self.program.append(instruction(opcode, **values))

    def sizes(self) -> Sizes:
        return Sizes(self.graph, self.config)

    def tensor(self, view: View) -> QTensor:
        return self.graph.tensors[view.tensor]

    def layout(self, view: View) -> Layout:
        return Layout.of(self.tensor(view), self.word)

    def is_resident(self, view: View) -> bool:
        """Whether rows, none of which lie elsewhere than the first, are in local memory."""
        return self.residency.resident_rows(view) == view.rows

    # ------------------------------------------------------------------------- constants

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
        return self.stored_load(address, words_of(data.size, 1, self.word), consume, **options)

    def stored_load(
        self, address: int, words: int, consume: Callable[[int], None], **options: Any
    ) -> Load:
        """The same for constants that are stored at a byte address already."""
        if self.config.dram == "none":
            return Load(None, consume, address=address // self.word, **options)

        def fetch(staging: int) -> None:
            self.copy_in(address, staging, words)

        return Load(fetch, consume, staging_words=words, **options)

    def table_load(
        self,
        name: str,
        data: np.ndarray,
        opcode: Opcode,
        count: int,
        *,
        wanted: int | None = None,
        **values: int,
    ) -> list[Load]:
        """A load into an engine's table, or nothing where the table holds that already. wanted: see
        `Load`."""
        if self.tables.get(name) == data.tobytes():
            return []
        self.tables[name] = data.tobytes()
        field_name = "gain_address" if opcode is Opcode.NORM_GAIN else "table_address"

        def consume(address: int) -> None:
            self.put(opcode, count=count, **{field_name: address}, **values)

        return [self.constant_load(data, consume, wanted=wanted)]

    def record_load(self, data: np.ndarray, sizes: dict[str, int]) -> Load:
        """Scale records [n, 8] into the parameter ring; sizes: `count` of LOAD_P, cut like the
        instruction that uses them."""

        def consume(address: int) -> None:
            self.put(Opcode.LOAD_P, p_address=address, **sizes)

        words = words_of(len(data), 8, self.word)
        return self.constant_load(data.ravel(), consume, early=True, p_words=words)

    # ------------------------------------------------------------------- rows of tensors

    def rows_of(self, view: View, row: int, rows: int) -> View:
        return View(view.tensor, view.row + row, rows, view.col, view.cols)

    def home(self, view: View) -> int:
        """Byte address in DRAM of the first element of a view."""
        tensor, layout = self.tensor(view), self.layout(view)
        if tensor.role is Role.CONSTANT:
            base = self.constants.add(layout.pack(codes_of(tensor)))
        else:
            base = self.plan.dram[tensor.name]
        return base + layout.word_of(view.row, view.col) * self.word

    def move(self, opcode: Opcode, view: View, word: int, words: int, local: int) -> None:
        """DMA between DRAM and a block of staging: `words` words of each row of a view, from its
        word `word` on. Rows behind the runtime length stay."""
        layout = self.layout(view)
        sizes = self.sizes().rows("rows", view.rows, view).values
        if layout.kind == "record":
            sizes = {"rows": 1}
        self.put(
            opcode,
            words=words,
            local_address=local,
            local_stride=words,
            dram_address=self.home(view) + word * self.word,
            dram_stride=layout.row_words * self.word,
            **sizes,
        )

    def block_words(self, view: View, words: int) -> int:
        """Words of a block in staging that holds `words` words of each row of a view."""
        return words if self.layout(view).kind == "record" else view.rows * words

    def row_words(self, view: View) -> int:
        """Words from the first to the last of a row of a view; of all rows for records."""
        layout = self.layout(view)
        if layout.kind == "record":
            return layout.words_of_rows(view.rows)
        return words_of(layout.view_elements(view), layout.element_bytes, self.word)

    def load_rows(
        self, view: View, word: int, words: int, consume: Callable[[int], None], **options: Any
    ) -> Load:
        """A load of rows that lie in DRAM, not before they are stored there."""

        def fetch(staging: int) -> None:
            self.move(Opcode.DMA_LOAD, view, word, words, staging)

        size = self.block_words(view, words)
        return Load(fetch, consume, staging_words=size, after=self.written(view), **options)

    def written(self, view: View) -> int:
        """The last step so far that writes rows of a view; of an input in local memory the last one
        before its place is its own; -1 where there is none."""
        if self.is_brought(view):
            return self._places.setdefault(view.tensor, self._before)
        if view.tensor not in self._written:
            return -1
        return int(self._written[view.tensor][view.row : view.row + view.rows].max())

    def write(self, view: View) -> None:
        """Notes that the newest step writes rows."""
        rows = self.graph.tensors[view.tensor].rows
        written = self._written.setdefault(view.tensor, np.full(rows, -1))
        written[view.row : view.row + view.rows] = len(self.steps) - 1

    @property
    def _before(self) -> int:
        """The last step of the operations before this one."""
        return max(
            (i for i, s in enumerate(self.steps) if s.operation != self.operation), default=-1
        )

    def is_brought(self, view: View) -> bool:
        """Whether rows in local memory are an input's, which is brought there from DRAM."""
        role = self.tensor(view).role
        return role is Role.INPUT and self.config.dram == "readwrite" and self.is_resident(view)

    def read_rows(self, step: Step, view: View, word: int = 0, words: int | None = None) -> Rows:
        """Rows that a step reads: where they lie, or in staging, with their load in the step."""
        words = self.row_words(view) if words is None else words
        if self.is_resident(view):
            if self.is_brought(view):
                step.loads.append(self.bring(view, lambda _: None))
            return self.local_rows(view, word)
        load = self.load_rows(view, word, words, lambda _: None, held=True)
        step.loads.append(load)
        return Rows(lambda: load.address, words, load)

    def write_rows(
        self,
        step: Step,
        view: View,
        word: int = 0,
        words: int | None = None,
        over: Rows | None = None,
    ) -> Rows:
        """Rows that a step writes: where they lie, or in staging, with their store in the step,
        which must be the last one made. over: rows of the same shape which the step reads, each
        element before it writes the same one: then both pass through the same words."""
        words = self.row_words(view) if words is None else words
        self.write(view)
        if self.is_resident(view):
            return self.local_rows(view, word)

        def emit(address: int) -> None:
            self.move(Opcode.DMA_STORE, view, word, words, address)

        load = None if over is None or over.stride != words else over.load
        store = Store(self.block_words(view, words), emit, load)
        step.stores.append(store)
        return Rows(lambda: store.address, words)

    def bring(self, view: View, consume: Callable[[int], None], **options: Any) -> Load:
        """A load of an input's rows to their place in local memory."""
        after = self.written(view)
        return Load(lambda _: self._bring(view), consume, after=after, **options)

    def local_rows(self, view: View, word: int = 0) -> Rows:
        """Rows in local memory; those of an input are brought when they are first used."""
        place = self.plan.local[view.tensor]

        def address() -> int:
            self._bring(view)
            return place.word(view) + word

        return Rows(address, place.layout.row_words)

    def _bring(self, view: View) -> None:
        """Emits the DMA of rows of an input that are not in local memory yet."""
        if not self.is_brought(view):
            return
        tensor = self.tensor(view)
        layout = self.layout(view)
        present = self._present.setdefault(tensor.name, np.zeros(tensor.rows, bool))
        missing = np.flatnonzero(~present[view.row : view.row + view.rows])
        for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
            if not run.size:
                continue
            first = view.row + int(run[0])
            rows = View(view.tensor, first, len(run), 0, tensor.cols)
            present[first : first + len(run)] = True
            local = self.plan.local[tensor.name].address + first * layout.row_words
            if self.graph.tokens is None or tensor.row_token is None:
                self.copy_in(self.home(rows), local, len(run) * layout.row_words)
            else:
                self.move(Opcode.DMA_LOAD, rows, 0, layout.row_words, local)
