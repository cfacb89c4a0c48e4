"""The back end: from an integer graph to a program image."""

from collections.abc import Callable
from typing import Any

from gateformer.compiler.batching import batch
from gateformer.compiler.graph import Role
from gateformer.compiler.layers import Layers
from gateformer.compiler.pieces import cut_pieces
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.schedule import Schedule
from gateformer.compiler.search import fastest
from gateformer.compiler.synchronize import synchronize
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.image import Descriptor, ProgramImage
from gateformer.spec.isa import Instruction

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
    together = batch(graph, samples, config)
    observe("batch", together)
    best = fastest(cut_pieces(together, config), config, cut_pieces(graph, config))
    graph, plan, scheduled = best.graph, best.plan, best.schedule
    observe("order", graph)
    observe("plan", plan)
    observe("schedule", scheduled)
    program = synchronize(config, scheduled.instructions)
    observe("synchronize", program)
    image = _image(graph, config, plan, scheduled, tuple(program), macs_of_length)
    observe("encode", image)
    return image, Layers.of(graph.operations, scheduled.operations)


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
