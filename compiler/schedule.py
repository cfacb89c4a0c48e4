"""Tiling: turns the integer graph into steps and loads, and these into instructions."""

import math
from dataclasses import dataclass, field

import numpy as np

from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.plan import Place, Plan, codes_of, loaded_tensors
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
    Records,
)
from gateformer.compiler.steps import Emitter, Load, Staging, Step
from gateformer.spec.arithmetic import NORM_SHIFTS, pack_gain_records, pack_scale_records
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import WORDS, Format, Instruction, Opcode, instruction

GROUP_ROWS = 32
"""Rows of an operation that one instruction computes: the grain of overlap between engines."""

_FORMATS = {"int8": Format.INT8, "int16": Format.INT16, "int32": Format.INT32}


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
class Schedule:
    """The instructions of a program, without semaphore masks, and the data they read."""

    instructions: list[Instruction]
    constants: Constants


@dataclass
class _Scheduler:
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

    # Emission of single instructions

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

    # Constants

    def constant_load(self, data: np.ndarray, consume, **options) -> Load:  # type: ignore[no-untyped-def]
        """A load of constant bytes; `consume(address)` reads them at a word address."""
        address = self.constants.add(data)
        words = words_of(data.size, 1, self.word)
        if self.config.dram == "none":
            return Load(None, consume, address=address // self.word, **options)

        def fetch(staging: int) -> None:
            self.copy_in(address, staging, words)

        return Load(fetch, consume, staging_words=words, **options)

    def table_load(self, name: str, data: np.ndarray, opcode: Opcode, count: int, **values: int):  # type: ignore[no-untyped-def]
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

    # Tensors

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

    def finish_outputs(self) -> None:
        """Stores the outputs that lie in local memory."""
        if self.config.dram != "readwrite":
            return
        for tensor in self.graph.tensors.values():
            if tensor.role is Role.OUTPUT and tensor.name in self.plan.local:
                place = self.plan.local[tensor.name]
                self.put(
                    Opcode.DMA_STORE,
                    rows=tensor.rows,
                    words=place.layout.row_words,
                    local_address=place.address,
                    local_stride=place.layout.row_words,
                    dram_address=self.plan.dram[tensor.name],
                    dram_stride=place.layout.row_words * self.word,
                )

    # Operations

    def steps(self, op: QOperation) -> list[Step]:
        match op:
            case QGemm():
                return self.gemm(op)
            case QSoftmax():
                return self.softmax(op)
            case QNorm():
                return self.norm(op)
            case QCopy():
                return self.copy(op)

    def copy(self, op: QCopy) -> list[Step]:
        if self.config.dram == "none":
            return []
        place = self.place(op.target)
        tensor = self.tensor(op.source)
        source = self.constants.add(Layout.of(tensor, self.word).pack(codes_of(tensor)))
        row_words = place.layout.row_words

        def emit() -> None:
            words = op.target.rows * row_words
            dram = source + op.source.row * row_words * self.word
            self.copy_in(dram, place.word(op.target), words)

        return [Step(emit)]

    def softmax(self, op: QSoftmax) -> list[Step]:
        length = op.source.cols
        if length > self.config.softmax_length:
            raise CapacityError(
                f"{op.name!r}: a softmax row of {length} does not fit config "
                f"{self.config.name!r} ({self.config.softmax_length}): raise softmax_length"
            )
        source, target = self.place(op.source), self.place(op.target)
        records = self.plan.local[op.records]
        steps = []
        loads = self.table_load("exp", op.table, Opcode.EXP_TABLE, 256)
        # A group's records start on a word of their own.
        for row, rows in _groups(op.source.rows, self.group):

            def emit(row: int = row, rows: int = rows) -> None:
                self.put(
                    Opcode.SOFTMAX,
                    rows=rows,
                    length=length,
                    bound=op.bound + row * op.causal,
                    causal=int(op.causal),
                    source_address=source.word(self.rows_of(op.source, row, rows)),
                    source_stride=source.layout.row_words,
                    target_address=target.word(self.rows_of(op.target, row, rows)),
                    target_stride=target.layout.row_words,
                    record_address=records.address + row * 8 // self.word,
                    numerator=op.numerator,
                )

            steps.append(Step(emit, loads))
            loads = []
        return steps

    def norm(self, op: QNorm) -> list[Step]:
        channels = op.source.cols
        if channels > self.config.norm_length:
            raise CapacityError(
                f"{op.name!r}: a norm of {channels} channels does not fit config "
                f"{self.config.name!r} ({self.config.norm_length}): raise norm_length"
            )
        source = self.place(op.source)
        outputs: list[tuple[int, Gain]] = [
            (width, gain) for width, gain in ((8, op.int8), (16, op.int16)) if gain is not None
        ]
        loads: list[Load] = []
        for width, gain in outputs:
            data = pack_gain_records(gain.gains, gain.biases).ravel()
            name, output16 = f"gain{width}", int(width == 16)
            loads += self.table_load(
                name, data, Opcode.NORM_GAIN, len(gain.gains), output16=output16
            )
        steps = []
        for row, rows in _groups(op.source.rows, self.group):

            def emit(row: int = row, rows: int = rows) -> None:
                values: dict[str, int] = {}
                for width, gain in outputs:
                    place = self.place(gain.target)
                    view = self.rows_of(gain.target, row, rows)
                    values[f"write{width}"] = 1
                    values[f"shift{width}"] = NORM_SHIFTS.index(gain.shift)
                    values[f"target{width}_address"] = place.word(view)
                    values[f"target{width}_stride"] = place.layout.row_words
                self.put(
                    Opcode.NORM,
                    rows=rows,
                    channels=channels,
                    source_address=source.word(self.rows_of(op.source, row, rows)),
                    source_stride=source.layout.row_words,
                    epsilon=op.epsilon,
                    **values,
                )

            steps.append(Step(emit, loads))
            loads = []
        return steps

    def gemm(self, op: QGemm) -> list[Step]:
        return _GemmTiler(self, op).steps()


def _groups(rows: int, group: int) -> list[tuple[int, int]]:
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


class _GemmTiler:
    """Cuts one Gemm into blocks of B and groups of rows of A."""

    def __init__(self, scheduler: _Scheduler, op: QGemm) -> None:
        self.s = scheduler
        self.op = op
        self.config = scheduler.config
        self.word = scheduler.word
        self.a_layout = scheduler.layout(op.a)
        self.b_layout = scheduler.layout(op.b)
        self.out_layout = scheduler.layout(op.out)
        self.a_constant = scheduler.tensor(op.a).role is Role.CONSTANT
        self.b_constant = scheduler.tensor(op.b).role is Role.CONSTANT
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
        self.streamed = op.out.tensor not in scheduler.plan.local
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
            groups = _groups(self.m, self.s.group)
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


def minimum_staging(graph: QuantizedGraph, config: AcceleratorConfig) -> int:
    """Words of staging without which no schedule exists: a few of the largest indivisible loads."""
    if config.dram == "none":
        return 0
    largest = config.word_bytes
    group = group_rows(config)
    for op in graph.operations:
        if isinstance(op, QGemm):
            k_words = words_of(op.a.cols, 1, config.word_bytes)
            if graph.tensors[op.b.tensor].role is Role.CONSTANT:
                largest = max(largest, config.cols * k_words)
            if graph.tensors[op.a.tensor].role is Role.CONSTANT:
                largest = max(largest, group * k_words)
            if graph.tensors[op.out.tensor].role is Role.OUTPUT:
                rows = min(group, op.a.rows)
                columns = min(op.b.rows, math.lcm(config.cols, config.word_bytes))
                largest = max(largest, 2 * rows * words_of(columns, 4, config.word_bytes))
        if isinstance(op, QNorm):
            largest = max(largest, words_of(op.source.cols, 8, config.word_bytes))
    return 2 * largest + 512 // config.word_bytes


def schedule(graph: QuantizedGraph, config: AcceleratorConfig, plan: Plan) -> Schedule:
    """The program of a graph, masks not yet filled in. Raises CapacityError with the reason."""
    if config.dram == "none":
        base = plan.staging.start * config.word_bytes
    else:
        used = max(
            (
                plan.dram[name]
                + Layout.of(graph.tensors[name], config.word_bytes).words * config.word_bytes
                for name in plan.dram
            ),
            default=0,
        )
        base = -(-used // config.burst_bytes) * config.burst_bytes
    constants = Constants(base, config.word_bytes)
    if config.dram == "none":
        local = dict(plan.local)
        for name, codes in loaded_tensors(graph).items():
            layout = Layout.of(graph.tensors[name], config.word_bytes)
            address = constants.append(layout.pack(codes)) // config.word_bytes
            local[name] = Place(address, layout)
        plan = Plan(local, plan.dram, plan.staging)
    scheduler = _Scheduler(graph, config, plan, constants)
    steps = [step for op in graph.operations for step in scheduler.steps(op)]
    Emitter(config, scheduler.staging).run(steps)
    scheduler.finish_outputs()
    scheduler.put(Opcode.HALT)
    end = constants.base + len(constants.content) + 4 * WORDS * (len(scheduler.program) + 1)
    if config.dram == "none" and end > config.local_bytes:
        raise CapacityError(
            f"constants and program need {-(-end // 1024)} KiB of local memory with the "
            f"activations, config {config.name!r} has {config.local_kib} and no DRAM: raise "
            "local_kib or use a config with DRAM"
        )
    return Schedule(scheduler.program, constants)
