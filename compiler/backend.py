"""The back end: from an integer graph to a program image."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from gateformer.compiler.attention_bands import cut_attention
from gateformer.compiler.bands import cut_bands
from gateformer.compiler.batching import batch
from gateformer.compiler.cycle_model import predict_cycles
from gateformer.compiler.graph import Role
from gateformer.compiler.late_norms import put_off_norms
from gateformer.compiler.layers import Layers
from gateformer.compiler.ordering import order_operations
from gateformer.compiler.pieces import cut_pieces
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.schedule import Schedule, schedule
from gateformer.compiler.spilling import plan_memory
from gateformer.compiler.synchronize import synchronize
from gateformer.compiler.traffic import Weight
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.image import Descriptor, ProgramImage
from gateformer.spec.isa import Instruction

WEIGHTS: tuple[Weight, ...] = ("bytes", "urgency", "time")
STAGING_SHARES = (8, 12)
"""What may move to DRAM is weighed in several ways, with the first share of staging, and the best
way with others; the cycle model judges them. See `plan_memory`."""
EAGER = 2
"""Of so many programs, the fastest, the loads are also made to run ahead eagerly."""
FINALISTS = 3
"""Of so many programs, the fastest as the scheduler sees them, the cycles are predicted anew with
their semaphores: an engine then also waits for others that it need not wait for."""

PassObserver = Callable[[str, Any], None]
"""Called after each pass with its name and its result."""


def compile_quantized(
    graph: QuantizedGraph,
    config: AcceleratorConfig,
    *,
    samples: int = 1,
    observe: PassObserver = lambda *_: None,
) -> ProgramImage:
    """The program image of `compile_layers`."""
    return compile_layers(graph, config, samples=samples, observe=observe)[0]


def compile_layers(
    graph: QuantizedGraph,
    config: AcceleratorConfig,
    *,
    samples: int = 1,
    observe: PassObserver = lambda *_: None,
) -> tuple[ProgramImage, Layers]:
    """The back end: batches, orders, plans memory, tiles, schedules, synchronizes and encodes an
    integer graph of one sample, for `samples` samples that run together. Also tells which operation
    each instruction serves.

    Raises CapacityError when the graph does not fit the config, ConfigError when the batch does
    not.
    """
    macs_of_length = graph.macs_of_length()
    graph = batch(graph, samples, config)
    observe("batch", graph)
    best = _fastest(cut_pieces(graph, config), config)
    graph, plan, scheduled = best.graph, best.plan, best.schedule
    observe("order", graph)
    observe("plan", plan)
    observe("schedule", scheduled)
    program = synchronize(config, scheduled.instructions)
    observe("synchronize", program)
    image = _image(graph, config, plan, scheduled, tuple(program), macs_of_length)
    observe("encode", image)
    return image, Layers.of(graph.operations, scheduled.operations)


@dataclass(frozen=True)
class _Candidate:
    """An order of operations, where their tensors lie, and the program of that."""

    graph: QuantizedGraph
    plan: Plan
    schedule: Schedule
    weight: Weight
    share: int


def _fastest(graph: QuantizedGraph, config: AcceleratorConfig) -> _Candidate:
    """Of the ways to order and place a graph and to order its loads, the one whose program takes
    the fewest cycles."""
    found: list[_Candidate] = []
    failures: list[CapacityError] = []
    tried: list[QuantizedGraph] = []
    for cut in (_whole, cut_attention, cut_bands):
        other = cut(graph, config)
        if any(other is one for one in tried):
            continue
        tried.append(other)
        try:
            candidates = _placed(order_operations(other, config), config)
        except CapacityError as error:
            failures.append(error)
            candidates = []
        if not found or (candidates and _least(candidates) < _least(found)):
            graph = other
        found += candidates
    if not found:
        raise failures[0]
    found.sort(key=_cycles)
    with suppress(CapacityError):
        found += _late(found[0], config)
    found.sort(key=_cycles)
    found += [
        replace(one, schedule=schedule(one.graph, config, one.plan, eager=True))
        for one in found[:EAGER]
    ]
    finalists = sorted(found, key=_cycles)[:FINALISTS]
    return min(finalists, key=lambda one: _predicted(one, config))


def _predicted(candidate: _Candidate, config: AcceleratorConfig) -> int:
    return predict_cycles(config, synchronize(config, candidate.schedule.instructions))


def _placed(graph: QuantizedGraph, config: AcceleratorConfig) -> list[_Candidate]:
    """A graph whose operations are in order, placed in several ways: those in which it fits."""
    found: list[_Candidate] = []
    failures: list[CapacityError] = []

    def add(weight: Weight, share: int) -> None:
        try:
            plan = plan_memory(graph, config, weight, share)
            if all(plan.residency != other.plan.residency for other in found):
                program = schedule(graph, config, plan)
                found.append(_Candidate(graph, plan, program, weight, share))
        except CapacityError as error:
            failures.append(error)

    first, *others = STAGING_SHARES
    for weight in WEIGHTS:
        add(weight, first)
    if not found:
        raise failures[0]
    best = min(found, key=_cycles)
    for share in others:
        add(best.weight, share)
    return found


def _late(one: _Candidate, config: AcceleratorConfig) -> list[_Candidate]:
    """The same with norms put off whose results pass through DRAM, if there are any."""
    late = put_off_norms(one.graph, one.plan.residency)
    if not late.streams:
        return []
    plan = plan_memory(late.graph, config, one.weight, one.share, late.streams)
    return [replace(one, graph=late.graph, plan=plan, schedule=schedule(late.graph, config, plan))]


def _whole(graph: QuantizedGraph, config: AcceleratorConfig) -> QuantizedGraph:
    return graph


def _least(candidates: list[_Candidate]) -> int:
    return min(map(_cycles, candidates))


def _cycles(candidate: _Candidate) -> int:
    return candidate.schedule.cycles


def _image(
    graph: QuantizedGraph,
    config: AcceleratorConfig,
    plan: Plan,
    scheduled: Schedule,
    program: tuple[Instruction, ...],
    macs_of_length: tuple[int, int, int],
) -> ProgramImage:
    data = bytes(scheduled.constants.content)
    data += bytes(-len(data) % max(config.word_bytes, 32))
    end = scheduled.constants.base + len(data) + 32 * len(program)
    return ProgramImage(
        config_hash=config.hash,
        data_address=scheduled.constants.base,
        data=data,
        instructions=program,
        window_bytes=-(-end // config.burst_bytes) * config.burst_bytes,
        inputs=_descriptors(graph, config, plan, Role.INPUT),
        outputs=_descriptors(graph, config, plan, Role.OUTPUT),
        macs_of_length=macs_of_length,
        samples=graph.samples,
        tokens=graph.tokens,
        least_tokens=graph.least_tokens,
    )


def _descriptors(
    graph: QuantizedGraph, config: AcceleratorConfig, plan: Plan, role: Role
) -> tuple[Descriptor, ...]:
    return tuple(
        _descriptor(tensor, config, plan)
        for tensor in graph.tensors.values()
        if tensor.role is role
    )


def _descriptor(tensor: QTensor, config: AcceleratorConfig, plan: Plan) -> Descriptor:
    in_dram = tensor.name in plan.dram
    address = (
        plan.dram[tensor.name] if in_dram else plan.local[tensor.name].address * config.word_bytes
    )
    if tensor.kind not in ("int8", "int16") or tensor.scale is None:
        raise ValueError(f"input or output {tensor.name!r} has no scale or a kind {tensor.kind}")
    return Descriptor(
        name=tensor.name,
        rows=tensor.rows,
        cols=tensor.cols,
        segment=tensor.segment,
        kind=tensor.kind,
        scale=tensor.scale,
        zero=tensor.zero,
        space="dram" if in_dram else "local",
        address=address,
        samples=tensor.samples,
        row_token=tensor.row_token,
        col_tokens=tensor.col_tokens,
    )
