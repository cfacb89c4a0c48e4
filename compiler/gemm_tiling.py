"""The steps of one contraction: loads of B, records and A, and a GEMM for each group of rows."""

import math
from functools import cached_property
from itertools import pairwise

import numpy as np

from gateformer.compiler.emission import Emission, Rows
from gateformer.compiler.gemm_geometry import (
    PIECE_WORDS,
    PIECES,
    Block,
    GemmGeometry,
    Tiling,
    group_rows,
)
from gateformer.compiler.gemm_start import balanced_start, narrow_start
from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import words_of
from gateformer.compiler.plan import codes_of
from gateformer.compiler.quantized import QGemm, Records
from gateformer.compiler.steps import Load, Step
from gateformer.spec.arithmetic import pack_scale_records
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import Format, Opcode

_FORMATS = {"int8": Format.INT8, "int16": Format.INT16, "int32": Format.INT32}

Groups = tuple[tuple[int, int], ...]


class GemmTiler:
    """Makes the steps of one Gemm, in the order that `gemm_geometry` describes."""

    def __init__(self, emission: Emission, op: QGemm) -> None:
        self.s = emission
        self.op = op
        self.config = emission.config
        self.word = emission.word
        self.geometry = geometry = GemmGeometry(op, emission.graph, emission.residency)
        tiling = geometry.choose(emission.room)
        if tiling is None:
            raise CapacityError(
                f"{op.name!r}: no group of rows fits the {emission.room * self.word} bytes that "
                f"the activations of config {self.config.name!r} leave free: raise local_kib"
            )
        self.tiling = tiling
        if self._is_first:
            self.tiling = self._quick_start(tiling)
        self.out_bytes = geometry.out_layout.element_bytes
        self._pieces: dict[tuple[int, int, int], int] = {}
        """Byte addresses of pieces of a constant B, by column, part and first row."""
        self._held: dict[int, Load] = {}
        """Groups of A in staging, by first row."""
        self._kept: list[Load] = []
        """Loads that several steps use and that one of them brings."""
        self._slot = 0
        """Words that the chunk keeps so far."""

    @property
    def _is_first(self) -> bool:
        """Whether it is the program's first product."""
        operations = self.s.graph.operations
        return self.s.operation == next(
            index for index, op in enumerate(operations) if isinstance(op, QGemm)
        )

    def _quick_start(self, tiling: Tiling) -> Tiling:
        a = self.op.a
        if self.s.is_resident(a) and not self.s.is_brought(a):
            return narrow_start(self.geometry, tiling)
        if self.s.tensor(a).role is Role.INPUT:
            return balanced_start(self.geometry, tiling, self.s.room)
        return tiling

    def make(self) -> None:
        """Appends all steps to the emission's."""
        op, s = self.op, self.s
        loads: list[Load] = []
        if op.activation is not None:
            table = op.activation.view(np.uint8)
            loads = s.table_load("activation", table, Opcode.ACTIVATION_TABLE, len(table))
        for groups in self.tiling.chunks:
            self._kept = []
            self._slot = 0
            sums = self._sums_load(groups)
            self._hold(groups)
            s.kept[s.operation] = max(s.kept[s.operation], self._slot)
            for block in self.tiling.blocks:
                for index in range(len(self.tiling.parts)):
                    loads += self._b_loads(block, index)
                    loads += self._column_records(block, index)
                    for row, rows in groups:
                        self._step(loads, block, index, groups, (row, rows), sums)
                        loads = []

    # ------------------------------------------------------------------------ operand A

    def _hold(self, groups: Groups) -> None:
        """Makes the loads of a chunk's groups that stay in staging for all blocks; each ends with
        the last step of its group."""
        self._held = {}
        if not self.tiling.holds_a or self.config.dram == "none":
            return
        s, words = self.s, self.geometry.k_words
        steps = len(self.tiling.blocks) * len(self.tiling.parts) * len(groups)
        for index, (row, rows) in enumerate(groups):
            view = s.rows_of(self.op.a, row, rows)
            until = len(s.steps) + steps - len(groups) + index
            slot = {"slot": self._slot, "until": until}
            if self.geometry.a_constant:
                codes = self._a_codes(row, rows, 0, words)
                self._held[row] = s.constant_load(codes.ravel(), lambda _: None, **slot)
            elif not s.is_resident(view):
                self._held[row] = s.load_rows(view, 0, words, lambda _: None, **slot)
            else:
                continue
            self._slot += rows * words

    def _a_codes(self, row: int, rows: int, word: int, words: int) -> np.ndarray:
        """The bytes of rows of a constant A, from a word on."""
        part = self._weights[row : row + rows]
        return part[:, word * self.word : (word + words) * self.word]

    def _a_rows(self, step: Step, row: int, rows: int, part: range) -> Rows:
        """Rows of A for one step: resident, held for the chunk, or loaded for this step."""
        s = self.s
        first, words = part.start // self.word, words_of(len(part), 1, self.word)
        load = self._held.get(row)
        if load is not None:
            self._attach(step, load)
            return Rows(lambda: load.address + first, self.geometry.k_words)
        if self.geometry.a_constant:
            own = s.constant_load(
                self._a_codes(row, rows, first, words).ravel(), lambda _: None, held=True
            )
            step.loads.append(own)
            return Rows(lambda: own.address, words)
        return s.read_rows(step, s.rows_of(self.op.a, row, rows), first, words)

    def _attach(self, step: Step, load: Load) -> None:
        """Puts a load that several steps use into the first of them."""
        if not any(load is other for other in self._kept):
            self._kept.append(load)
            step.loads.append(load)

    # ------------------------------------------------------------------------ operand B

    def _b_loads(self, block: Block, index: int) -> list[Load]:
        """The loads that bring a block of B into the ring, in pieces of whole tiles."""
        cols, part = self.config.cols, self.tiling.parts[index]
        k_words = words_of(len(part), 1, self.word)
        first = part.start // self.word
        staged = self.geometry.b_constant or self.geometry.b_staged
        tiles = -(-block.count // cols)
        if staged and self.config.dram != "none":
            words = min(self.tiling.spare // PIECES, PIECE_WORDS)
            tiles = max(1, min(tiles, words // (cols * k_words)))
        edges = {*range(0, block.count, tiles * cols), block.count}
        if not self.geometry.b_constant:
            resident = self.s.residency.resident_rows(self.op.b) - block.row
            edges.add(min(max(resident, 0), block.count))
            if self.s.written(self.op.b) >= 0:
                # Rows come as they are made, group by group, in whole tiles.
                edges |= set(range(0, block.count, math.lcm(group_rows(self.config), cols)))
        ordered = sorted(edges)
        return [
            self._b_load(block, index, (start, end - start), first, k_words)
            for start, end in pairwise(ordered)
        ]

    def _b_load(
        self, block: Block, index: int, rows: tuple[int, int], first: int, k_words: int
    ) -> Load:
        s, start, count = self.s, *rows
        words = -(-count // self.config.cols) * k_words
        if self.geometry.b_constant:

            def consume(address: int) -> None:
                self._put_b(block, index, start, count, address, k_words)

            key = (block.column, index, start)
            if key not in self._pieces:
                piece = self._weights[block.row + start : block.row + start + count]
                piece = piece[:, first * self.word : (first + k_words) * self.word]
                self._pieces[key] = s.constants.add(piece)
            return s.stored_load(
                self._pieces[key], count * k_words, consume, early=True, b_words=words
            )
        view = s.rows_of(self.op.b, block.row + start, count)
        if s.is_resident(view):
            local = s.local_rows(view, first)

            def consume_local(_: int) -> None:
                self._put_b(block, index, start, count, local.address(), local.stride)

            if s.is_brought(view):
                return s.bring(view, consume_local, early=True, b_words=words)
            return Load(None, consume_local, early=True, b_words=words, after=s.written(view))

        def consume_staged(address: int) -> None:
            self._put_b(block, index, start, count, address, k_words)

        return s.load_rows(view, first, k_words, consume_staged, early=True, b_words=words)

    def _put_b(
        self, block: Block, index: int, start: int, count: int, address: int, stride: int
    ) -> None:
        sizes = self.s.sizes()
        self._cut_columns(sizes.values, "n", count, block, start)
        self._cut_k(sizes.values, index)
        self.s.put(Opcode.LOAD_B, b_address=address, b_stride=stride, **sizes.values)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The bytes of a constant operand, rows and columns at their padded places: uint8 [n,
        k]."""
        geometry = self.geometry
        view = self.op.b if geometry.b_constant else self.op.a
        codes = codes_of(self.s.tensor(view))[
            view.row : view.row + view.rows, view.col : view.col + view.cols
        ]
        rows = self._n_columns if geometry.b_constant else np.arange(view.rows)
        size = geometry.n if geometry.b_constant else view.rows
        weights = np.zeros((size, geometry.k_words * self.word), np.int8)
        weights[np.ix_(rows, geometry.k_columns)] = codes
        return weights.view(np.uint8)

    @cached_property
    def _n_columns(self) -> np.ndarray:
        """Position of each row of a constant B among the output's columns."""
        return self.geometry.out_layout.physical_columns(self.op.out)

    # -------------------------------------------------------------------- scale records

    def _is_last(self, index: int) -> bool:
        return index == len(self.tiling.parts) - 1

    def _column_records(self, block: Block, index: int) -> list[Load]:
        """Records by column; all zero for a part whose sums stay int32."""
        count = block.count
        if not self._is_last(index):
            packed = np.zeros((count, 8), np.uint8)
        elif self.geometry.by_row:
            return []
        else:
            packed = self._packed_columns[block.row : block.row + count]
        sizes = self.s.sizes()
        self._cut_columns(sizes.values, "count", count, block, 0)
        return [self.s.record_load(packed, sizes.values)]

    @cached_property
    def _packed(self) -> np.ndarray:
        records = self.op.records
        assert isinstance(records, Records)
        return pack_scale_records(records.bias, records.multiplier, records.selector)

    @cached_property
    def _packed_columns(self) -> np.ndarray:
        """Records of the rows of B as blocks count them."""
        if not self.geometry.b_constant:
            return self._packed
        packed = np.zeros((self.geometry.n, 8), np.uint8)
        packed[self._n_columns] = self._packed
        return packed

    def _row_records(self, row: int, rows: int) -> Load:
        """The scale records of a group of rows: constants, or what softmax wrote."""
        s, records = self.s, self.op.records
        sizes = s.sizes().rows("count", rows, self.op.out, row).values
        if isinstance(records, Records):
            return s.record_load(self._packed[row : row + rows], sizes)
        view = View(records, self.op.a.row + row, rows, 0, 1)
        words = words_of(rows, 8, self.word)

        def consume(address: int) -> None:
            s.put(Opcode.LOAD_P, p_address=address, **sizes)

        if s.is_resident(view):
            local = s.local_rows(view)
            return Load(
                None,
                lambda _: consume(local.address()),
                early=True,
                p_words=words,
                after=s.written(view),
            )
        return s.load_rows(view, 0, words, consume, early=True, p_words=words)

    # ---------------------------------------------------------------------------- steps

    def _cut_columns(
        self, values: dict[str, int], name: str, count: int, block: Block, start: int
    ) -> None:
        """A size that counts columns of a block from `start` on: cut where they are tokens."""
        values[name] = count
        if not self.geometry.b_constant and self.s.tensor(self.op.out).col_tokens:
            values |= self.s.sizes().rows(name, count, self.op.b, block.row + start).values

    def _cut_k(self, values: dict[str, int], index: int) -> None:
        """The contraction's size: cut where its elements are tokens."""
        count = len(self.tiling.parts[index])
        values["k"] = count
        if not self.geometry.a_constant and not self.geometry.b_constant:
            values |= self.s.sizes().columns("k", count, self.op.b).values

    def _sums_load(self, groups: Groups) -> Load | None:
        """The staging in which partial sums of one block wait, kept during the chunk."""
        parts, blocks = self.tiling.parts, self.tiling.blocks
        if len(parts) == 1:
            return None
        rows = sum(count for _, count in groups)
        columns = max(block.count for block in blocks)
        words = rows * words_of(columns, 4, self.word)
        until = len(self.s.steps) + len(blocks) * len(parts) * len(groups) - 1
        load = Load(None, lambda _: None, staging_words=words, slot=self._slot, until=until)
        self._slot += words
        return load

    def _step(
        self,
        loads: list[Load],
        block: Block,
        index: int,
        groups: Groups,
        group: tuple[int, int],
        sums: Load | None,
    ) -> None:
        op, s = self.op, self.s
        row, rows = group
        last_group, last_part = group == groups[-1], self._is_last(index)
        by_row = self.geometry.by_row and last_part
        step = s.new_step()
        step.loads += loads
        if sums is not None:
            self._attach(step, sums)
        if by_row:
            step.loads.append(self._row_records(row, rows))
        a = self._a_rows(step, row, rows, self.tiling.parts[index])
        sizes = s.sizes().rows("m", rows, op.out, row)
        self._cut_columns(sizes.values, "n", block.count, block, 0)
        self._cut_k(sizes.values, index)
        values = sizes.values | {
            "activation": int(op.activation is not None and last_part),
            "by_row": int(by_row),
            "release_b": int(last_group),
            "release_p": int(last_group or by_row),
        }
        operands: dict[str, Rows] = {"a": a}
        partial = self._partial(sums, groups, row, block)
        if index:
            values["addend"] = 1
            operands["addend"] = partial
        if last_part:
            values["format"] = int(_FORMATS[s.tensor(op.out).kind])
            if op.residual is not None:
                # Before the output, which may take its place.
                values["residual"] = 1
                operands["residual"] = self._residual_rows(step, row, rows, block)
            operands["out"] = self._out_rows(step, row, rows, block, operands.get("residual"))
        else:
            values["format"] = int(Format.INT32)
            operands["out"] = partial

        def emit() -> None:
            for name, operand in operands.items():
                values[f"{name}_address"] = operand.address()
                values[f"{name}_stride"] = operand.stride
            s.put(Opcode.GEMM, **values)

        step.emit = emit
        k_words = words_of(len(self.tiling.parts[index]), 1, self.word)
        if last_group:
            step.release_b = -(-block.count // self.config.cols) * k_words
        if by_row:
            step.release_p = words_of(rows, 8, self.word)
        elif last_group:
            step.release_p = words_of(block.count, 8, self.word)

    def _partial(self, sums: Load | None, groups: Groups, row: int, block: Block) -> Rows:
        """Where the int32 sums of a group of rows wait."""
        words = words_of(block.count, 4, self.word)
        first = row - groups[0][0]
        return Rows(lambda: (sums.address if sums else 0) + first * words, words)

    def _out_rows(
        self, step: Step, row: int, rows: int, block: Block, residual: Rows | None
    ) -> Rows:
        first = block.column * self.out_bytes // self.word
        words = words_of(block.count, self.out_bytes, self.word)
        view = self.s.rows_of(self.op.out, row, rows)
        return self.s.write_rows(step, view, first, words, over=residual)

    def _residual_rows(self, step: Step, row: int, rows: int, block: Block) -> Rows:
        assert self.op.residual is not None
        view = self.s.rows_of(self.op.residual, row, rows)
        words = words_of(block.count, 2, self.word)
        return self.s.read_rows(step, view, block.column * 2 // self.word, words)
