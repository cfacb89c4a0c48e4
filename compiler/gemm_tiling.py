"""Tiles one contraction: blocks of B that fit the ring, groups of rows of A."""

import math

import numpy as np

from gateformer.compiler.emission import Emission, row_groups
from gateformer.compiler.graph import Role
from gateformer.compiler.layout import words_of
from gateformer.compiler.plan import codes_of
from gateformer.compiler.quantized import QGemm, Records
from gateformer.compiler.steps import Load, Step
from gateformer.spec.arithmetic import pack_scale_records
from gateformer.spec.config import SIZE_LIMIT
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import Format, Opcode

_FORMATS = {"int8": Format.INT8, "int16": Format.INT16, "int32": Format.INT32}


class GemmTiler:
    """Cuts one Gemm into blocks of B and groups of rows of A."""

    def __init__(self, emission: Emission, op: QGemm) -> None:
        self.s = emission
        self.op = op
        self.config = emission.config
        self.word = emission.word
        self.a_layout = emission.layout(op.a)
        self.b_layout = emission.layout(op.b)
        self.out_layout = emission.layout(op.out)
        self.a_constant = emission.tensor(op.a).role is Role.CONSTANT
        self.b_constant = emission.tensor(op.b).role is Role.CONSTANT
        k_layout, k_view = (self.b_layout, op.b) if self.a_constant else (self.a_layout, op.a)
        self.k_columns = k_layout.physical_columns(k_view)
        self.k = k_layout.view_elements(k_view)
        self.k_words = words_of(self.k, 1, self.word)
        if self.k > self.config.k_max:
            raise CapacityError(
                f"{op.name!r}: a contraction of {self.k} exceeds the {self.config.k_max} of config "
                f"{self.config.name!r}: raise a_depth and b_depth"
            )
        self.m = op.a.rows
        self.streamed = op.out.tensor not in emission.plan.local
        self.n_columns = self._n_columns()
        self.n = self._n()
        self.block = self._block()

    def _n_columns(self) -> np.ndarray:
        """Position of each row of B among the output's columns, inner padding included."""
        if self.b_constant:
            return self.out_layout.physical_columns(self.op.out)
        return np.arange(self.op.b.rows)

    def _n(self) -> int:
        """Columns computed. An int8 row's padding is computed as zeros from zero weights, since a
        contraction of two activations sums over it."""
        if not self.b_constant:
            return self.op.b.rows
        if self.out_layout.kind == "int8":
            segments = self.op.out.cols // self.out_layout.segment
            return segments * self.out_layout.padded_segment
        return self.out_layout.view_elements(self.op.out)

    def _block(self) -> int:
        """Columns of one block of B: as many as half the B ring and half the parameter ring hold,
        so that the next block loads meanwhile; whole tiles, and whole words of the output."""
        config, op = self.config, self.op
        unit = math.lcm(config.cols, self.word)
        limit = min(config.b_depth // 2 // self.k_words * config.cols, SIZE_LIMIT)
        if limit < min(unit, self.n):
            # Then blocks cannot load ahead; the ring holds just one.
            limit = config.b_depth // self.k_words * config.cols
        if not op.by_row and not isinstance(op.records, str):
            limit = min(limit, config.p_depth // 2)
        if self.streamed:
            row_words = len(self.s.plan.staging) // 4 // min(self.s.group, self.m)
            limit = min(limit, row_words * self.word // self.out_layout.element_bytes)
        if self.n <= limit:
            return self.n
        if limit < unit:
            raise CapacityError(
                f"{op.name!r}: {unit} rows of B of {self.k} elements do not fit half the rings of "
                f"config {config.name!r}: raise b_depth, p_depth or local_kib"
            )
        blocks = -(-self.n // (limit // unit * unit))
        return -(-self.n // blocks // unit) * unit

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        loads: list[Load] = []
        if self.op.activation is not None:
            table = self.op.activation.view(np.uint8)
            loads = self.s.table_load("activation", table, Opcode.ACTIVATION_TABLE, len(table))
        for column in range(0, self.n, self.block):
            count = min(self.block, self.n - column)
            loads += self._b_loads(column, count)
            if isinstance(self.op.records, Records) and not self.op.by_row:
                loads.append(self.s.record_load(self._column_records(column, count)))
            groups = row_groups(self.m, self.s.group)
            for index, (row, rows) in enumerate(groups):
                last = index == len(groups) - 1
                steps.append(self._step(loads, column, count, row, rows, last))
                loads = []
        return steps

    def _b_loads(self, column: int, count: int) -> list[Load]:
        """The loads that bring columns of B into the ring, in pieces of whole tiles."""
        cols = self.config.cols
        if not self.b_constant:
            place = self.s.place(self.op.b)
            view = self.s.rows_of(self.op.b, column, count)

            def consume(_: int) -> None:
                self.s.bring(view)
                self._put_b(place.word(view), place.layout.row_words, count)

            return [Load(None, consume, early=True, b_words=-(-count // cols) * self.k_words)]
        weights = self._weights()[column : column + count]
        tile = cols * self.k_words
        tiles = max(1, len(self.s.plan.staging) // 6 // tile)
        loads = []
        for start in range(0, count, tiles * cols):
            piece = weights[start : start + tiles * cols]

            def consume_piece(address: int, rows: int = len(piece)) -> None:
                self._put_b(address, self.k_words, rows)

            words = -(-len(piece) // cols) * self.k_words
            loads.append(
                self.s.constant_load(piece.ravel(), consume_piece, early=True, b_words=words)
            )
        return loads

    def _put_b(self, address: int, stride: int, rows: int) -> None:
        self.s.put(Opcode.LOAD_B, n=rows, k=self.k, b_address=address, b_stride=stride)

    def _weights(self) -> np.ndarray:
        """The bytes of a constant operand, rows and columns at their padded places: uint8 [n,
        k]."""
        view = self.op.b if self.b_constant else self.op.a
        codes = codes_of(self.s.tensor(view))[
            view.row : view.row + view.rows, view.col : view.col + view.cols
        ]
        rows = self.n_columns if self.b_constant else np.arange(view.rows)
        size = self.n if self.b_constant else view.rows
        weights = np.zeros((size, self.k_words * self.word), np.int8)
        weights[np.ix_(rows, self.k_columns)] = codes
        return weights.view(np.uint8)

    def _column_records(self, column: int, count: int) -> np.ndarray:
        records = self.op.records
        assert isinstance(records, Records)
        packed = np.zeros((self.n, 8), np.uint8)
        packed[self.n_columns] = pack_scale_records(
            records.bias, records.multiplier, records.selector
        )
        return packed[column : column + count]

    def _row_records(self, row: int, rows: int) -> Load:
        """The scale records of a group of rows: constants, or what softmax wrote."""
        records = self.op.records
        if isinstance(records, Records):
            packed = pack_scale_records(records.bias, records.multiplier, records.selector)
            return self.s.record_load(packed[row : row + rows])
        address = self.s.plan.local[records].address + row * 8 // self.word

        def consume(_: int) -> None:
            self.s.put(Opcode.LOAD_P, count=rows, p_address=address)

        words = words_of(rows, 8, self.word)
        return Load(None, consume, early=True, p_words=words)

    def _step(
        self, loads: list[Load], column: int, count: int, row: int, rows: int, last: bool
    ) -> Step:
        op, s = self.op, self.s
        by_row = op.by_row or isinstance(op.records, str)
        loads = list(loads)
        if by_row:
            loads.append(self._row_records(row, rows))
        held: Load | None = None
        if self.a_constant:
            held = s.constant_load(
                self._weights()[row : row + rows].ravel(), lambda _: None, held=True
            )
            loads.append(held)
        values = {
            "m": rows,
            "n": count,
            "k": self.k,
            "format": int(_FORMATS[s.tensor(op.out).kind]),
            "activation": int(op.activation is not None),
            "by_row": int(by_row),
            "release_b": int(last),
            "release_p": int(last or by_row),
        }
        step = Step(lambda: None, loads)
        out_words = words_of(count, self.out_layout.element_bytes, self.word)

        def emit() -> None:
            if held is not None:
                values.update(a_address=held.address, a_stride=self.k_words)
            else:
                view = s.rows_of(op.a, row, rows)
                s.bring(view)
                place = s.place(op.a)
                values.update(a_address=place.word(view), a_stride=place.layout.row_words)
            if op.residual is not None:
                self._residual(values, column, row, rows)
            if self.streamed:
                self._streamed_out(step, values, column, row, rows, out_words)
            else:
                place = s.place(op.out)
                address = place.word(s.rows_of(op.out, row, rows))
                values.update(
                    out_address=address + column * self.out_layout.element_bytes // self.word,
                    out_stride=place.layout.row_words,
                )
            s.put(Opcode.GEMM, **values)

        step.emit = emit
        if last:
            step.release_b = -(-count // self.config.cols) * self.k_words
        if by_row:
            step.release_p = words_of(rows, 8, self.word)
        elif last:
            step.release_p = words_of(count, 8, self.word)
        return step

    def _residual(self, values: dict[str, int], column: int, row: int, rows: int) -> None:
        residual = self.op.residual
        assert residual is not None
        view = self.s.rows_of(residual, row, rows)
        self.s.bring(view)
        place = self.s.place(residual)
        values.update(
            residual=1,
            residual_address=place.word(view) + column * 2 // self.word,
            residual_stride=place.layout.row_words,
        )

    def _streamed_out(
        self, step: Step, values: dict[str, int], column: int, row: int, rows: int, words: int
    ) -> None:
        """Output rows go to staging, and from there to DRAM."""
        s = self.s
        address = s.staging.allocate(rows * words)
        if address is None:
            raise CapacityError(
                f"{self.op.name!r}: no room in local memory of config {self.config.name!r} for a "
                "block of the output: raise local_kib"
            )
        values.update(out_address=address, out_stride=words)
        view = s.rows_of(self.op.out, row, rows)
        layout = self.out_layout
        offset = view.row * layout.row_words + layout.column_word(view.col)
        offset += column * layout.element_bytes // self.word
        dram = s.plan.dram[self.op.out.tensor] + offset * self.word

        def store() -> None:
            s.put(
                Opcode.DMA_STORE,
                rows=rows,
                words=words,
                local_address=address,
                local_stride=words,
                dram_address=dram,
                dram_stride=layout.row_words * self.word,
            )
            s.staging.free(address)

        step.store = store
