"""Tiling and order: turns the integer graph into steps and loads, and these into instructions."""

from dataclasses import dataclass, replace

from gateformer.compiler import row_steps
from gateformer.compiler.constants import Constants
from gateformer.compiler.emission import Emission
from gateformer.compiler.emitter import Emitter
from gateformer.compiler.gemm_tiling import GemmTiler
from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout
from gateformer.compiler.plan import Place, Plan, loaded_tensors
from gateformer.compiler.quantized import QCopy, QGemm, QNorm, QOperation, QSoftmax, QuantizedGraph
from gateformer.compiler.residency import row_groups
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import WORDS, Instruction, Opcode

SHARE = 0.8
"""Part of the spare staging that data of later steps may take."""


@dataclass
class Schedule:
    """The instructions of a program, without semaphore masks, and the data they read.

    operations: for each instruction the index of the operation of the graph that it serves; the
    number of operations for what only ends the program. cycles: as the cycle model predicts them.
    """

    instructions: list[Instruction]
    constants: Constants
    operations: list[int]
    cycles: int


def schedule(
    graph: QuantizedGraph, config: AcceleratorConfig, plan: Plan, *, eager: bool = False
) -> Schedule:
    """The program of a graph, masks not yet filled in. eager: how loads run ahead, see `Emitter`.
    Raises CapacityError with the reason."""
    try:
        return _schedule(graph, config, plan, SHARE, eager=eager)
    except CapacityError:
        # What passed through may have left staging in pieces too small for what came after.
        return _schedule(graph, config, plan, 0, eager=False)


def _schedule(
    graph: QuantizedGraph, config: AcceleratorConfig, plan: Plan, share: float, *, eager: bool
) -> Schedule:
    constants = Constants(plan.constants_base, config.word_bytes)
    if config.dram == "none":
        local = dict(plan.local)
        for name, codes in loaded_tensors(graph).items():
            layout = Layout.of(graph.tensors[name], config.word_bytes)
            address = constants.append(layout.pack(codes)) // config.word_bytes
            local[name] = Place(address, layout, layout.rows)
        plan = replace(plan, local=local)
    emission = Emission(graph, config, plan, constants)
    for index, op in enumerate(graph.operations):
        emission.operation = index
        _make_steps(emission, op)
    _check_room(emission)
    emitter = Emitter(
        config, emission.bounds, emission.slots, emission.program, share=share, eager=eager
    )
    emitter.run(emission.steps)
    _finish_outputs(emission)
    emission.put(Opcode.HALT)
    _check_room(emission)
    others = len(emission.program) - len(emitter.operations)
    operations = emitter.operations + [len(graph.operations)] * others
    return Schedule(emission.program, constants, operations, emitter.model.timeline().cycles)


def _check_room(s: Emission) -> None:
    """Raises CapacityError where constants and the instructions so far do not fit local memory
    although there is no DRAM."""
    config = s.config
    end = s.constants.base + len(s.constants.content) + 4 * WORDS * (len(s.program) + 1)
    if config.dram == "none" and end > config.local_bytes:
        raise CapacityError(
            f"constants and program need {-(-end // 1024)} KiB of local memory with the "
            f"activations, config {config.name!r} has {config.local_kib} and no DRAM: raise "
            "local_kib or use a config with DRAM"
        )


def _make_steps(s: Emission, op: QOperation) -> None:
    match op:
        case QGemm():
            GemmTiler(s, op).make()
        case QSoftmax():
            row_steps.softmax(s, op)
        case QNorm():
            row_steps.norm(s, op)
        case QCopy():
            row_steps.copy(s, op)


def _finish_outputs(s: Emission) -> None:
    """Stores the rows of outputs that lie in local memory."""
    if s.config.dram != "readwrite":
        return
    for tensor in s.graph.tensors.values():
        resident = s.residency.resident(tensor.name)
        if tensor.role is not Role.OUTPUT or tensor.name not in s.plan.local:
            continue
        place = s.plan.local[tensor.name]
        view = View(tensor.name, 0, resident, 0, tensor.cols)
        for row, rows in row_groups(s.residency, view, [], SIZE_LIMIT):
            part = s.rows_of(view, row, rows)
            s.move(Opcode.DMA_STORE, part, 0, place.layout.row_words, place.word(part))
