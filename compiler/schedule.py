"""Tiling and order: turns the integer graph into steps and loads, and these into instructions."""

import math
from dataclasses import dataclass

from gateformer.compiler.emission import Constants, Emission, group_rows, row_groups
from gateformer.compiler.gemm_tiling import GemmTiler
from gateformer.compiler.graph import Role
from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.plan import Place, Plan, codes_of, loaded_tensors
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QuantizedGraph,
)
from gateformer.compiler.steps import Emitter, Load, Step
from gateformer.spec.arithmetic import NORM_SHIFTS, pack_gain_records
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import WORDS, Instruction, Opcode


@dataclass
class Schedule:
    """The instructions of a program, without semaphore masks, and the data they read."""

    instructions: list[Instruction]
    constants: Constants


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
    emission = Emission(graph, config, plan, constants)
    steps = [step for op in graph.operations for step in _steps(emission, op)]
    Emitter(config, emission.staging).run(steps)
    _finish_outputs(emission)
    emission.put(Opcode.HALT)
    end = constants.base + len(constants.content) + 4 * WORDS * (len(emission.program) + 1)
    if config.dram == "none" and end > config.local_bytes:
        raise CapacityError(
            f"constants and program need {-(-end // 1024)} KiB of local memory with the "
            f"activations, config {config.name!r} has {config.local_kib} and no DRAM: raise "
            "local_kib or use a config with DRAM"
        )
    return Schedule(emission.program, constants)


def _steps(s: Emission, op: QOperation) -> list[Step]:
    match op:
        case QGemm():
            return GemmTiler(s, op).steps()
        case QSoftmax():
            return _softmax(s, op)
        case QNorm():
            return _norm(s, op)
        case QCopy():
            return _copy(s, op)


def _copy(s: Emission, op: QCopy) -> list[Step]:
    if s.config.dram == "none":
        return []
    place = s.place(op.target)
    tensor = s.tensor(op.source)
    source = s.constants.add(Layout.of(tensor, s.word).pack(codes_of(tensor)))
    row_words = place.layout.row_words

    def emit() -> None:
        words = op.target.rows * row_words
        dram = source + op.source.row * row_words * s.word
        s.copy_in(dram, place.word(op.target), words)

    return [Step(emit)]


def _softmax(s: Emission, op: QSoftmax) -> list[Step]:
    length = op.source.cols
    if length > s.config.softmax_length:
        raise CapacityError(
            f"{op.name!r}: a softmax row of {length} does not fit config "
            f"{s.config.name!r} ({s.config.softmax_length}): raise softmax_length"
        )
    source, target = s.place(op.source), s.place(op.target)
    records = s.plan.local[op.records]
    steps = []
    loads = s.table_load("exp", op.table, Opcode.EXP_TABLE, 256)
    # A group's records start on a word of their own.
    for row, rows in row_groups(op.source.rows, s.group):

        def emit(row: int = row, rows: int = rows) -> None:
            s.put(
                Opcode.SOFTMAX,
                rows=rows,
                length=length,
                bound=op.bound + row * op.causal,
                causal=int(op.causal),
                source_address=source.word(s.rows_of(op.source, row, rows)),
                source_stride=source.layout.row_words,
                target_address=target.word(s.rows_of(op.target, row, rows)),
                target_stride=target.layout.row_words,
                record_address=records.address + row * 8 // s.word,
                numerator=op.numerator,
            )

        steps.append(Step(emit, loads))
        loads = []
    return steps


def _norm(s: Emission, op: QNorm) -> list[Step]:
    channels = op.source.cols
    if channels > s.config.norm_length:
        raise CapacityError(
            f"{op.name!r}: a norm of {channels} channels does not fit config "
            f"{s.config.name!r} ({s.config.norm_length}): raise norm_length"
        )
    source = s.place(op.source)
    outputs: list[tuple[int, Gain]] = [
        (width, gain) for width, gain in ((8, op.int8), (16, op.int16)) if gain is not None
    ]
    loads: list[Load] = []
    for width, gain in outputs:
        data = pack_gain_records(gain.gains, gain.biases).ravel()
        name, output16 = f"gain{width}", int(width == 16)
        loads += s.table_load(name, data, Opcode.NORM_GAIN, len(gain.gains), output16=output16)
    steps = []
    for row, rows in row_groups(op.source.rows, s.group):

        def emit(row: int = row, rows: int = rows) -> None:
            values: dict[str, int] = {}
            for width, gain in outputs:
                place = s.place(gain.target)
                view = s.rows_of(gain.target, row, rows)
                values[f"write{width}"] = 1
                values[f"shift{width}"] = NORM_SHIFTS.index(gain.shift)
                values[f"target{width}_address"] = place.word(view)
                values[f"target{width}_stride"] = place.layout.row_words
            s.put(
                Opcode.NORM,
                rows=rows,
                channels=channels,
                source_address=source.word(s.rows_of(op.source, row, rows)),
                source_stride=source.layout.row_words,
                epsilon=op.epsilon,
                **values,
            )

        steps.append(Step(emit, loads))
        loads = []
    return steps


def _finish_outputs(s: Emission) -> None:
    """Stores the outputs that lie in local memory."""
    if s.config.dram != "readwrite":
        return
    for tensor in s.graph.tensors.values():
        if tensor.role is Role.OUTPUT and tensor.name in s.plan.local:
            place = s.plan.local[tensor.name]
            s.put(
                Opcode.DMA_STORE,
                rows=tensor.rows,
                words=place.layout.row_words,
                local_address=place.address,
                local_stride=place.layout.row_words,
                dram_address=s.plan.dram[tensor.name],
                dram_stride=place.layout.row_words * s.word,
            )
