"""Memory planning: where every tensor of the integer graph lies."""

from dataclasses import dataclass

import numpy as np

from gateformer.compiler.graph import Role, View
from gateformer.compiler.layout import Layout
from gateformer.compiler.quantized import (
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
)
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError


@dataclass(frozen=True)
class Place:
    """A tensor in local memory: first word and layout."""

    address: int
    layout: Layout

    def word(self, view: View) -> int:
        """Address of the first word of a view."""
        row = view.row * self.layout.row_words
        return self.address + row + self.layout.column_word(view.col)


@dataclass(frozen=True)
class Plan:
    """local: tensors with a place in local memory. dram: byte addresses of inputs and outputs in
    the DRAM window. staging: words of local memory through which constants and outputs pass."""

    local: dict[str, Place]
    dram: dict[str, int]
    staging: range


def reads(op: QOperation) -> list[str]:
    """Names of the tensors an operation reads, scale records included."""
    match op:
        case QGemm():
            names = [op.a.tensor, op.b.tensor]
            if op.residual is not None:
                names.append(op.residual.tensor)
            if isinstance(op.records, str):
                names.append(op.records)
            return names
        case QSoftmax() | QNorm() | QCopy():
            return [op.source.tensor]


def writes(op: QOperation) -> list[str]:
    match op:
        case QGemm():
            return [op.out.tensor]
        case QSoftmax():
            return [op.target.tensor, op.records]
        case QNorm():
            return [gain.target.tensor for gain in (op.int8, op.int16) if gain is not None]
        case QCopy():
            return [op.target.tensor]


def residual_constants(graph: QuantizedGraph) -> set[str]:
    """Constants that the epilogue adds: they are brought to local memory as a whole."""
    return {
        op.residual.tensor
        for op in graph.operations
        if isinstance(op, QGemm)
        and op.residual is not None
        and graph.tensors[op.residual.tensor].role is Role.CONSTANT
    }


def loaded_tensors(graph: QuantizedGraph) -> dict[str, np.ndarray]:
    """Without external memory: tensors that lie among the program's constants, since nothing can
    copy within local memory, with their contents before the start."""
    contents = {name: codes_of(graph.tensors[name]) for name in residual_constants(graph)}
    for op in graph.operations:
        if isinstance(op, QCopy):
            tensor = graph.tensors[op.target.tensor]
            empty = np.zeros((tensor.rows, tensor.cols), np.int64)
            target = contents.setdefault(tensor.name, empty)
            to, source = op.target, op.source
            part = codes_of(graph.tensors[source.tensor])
            part = part[source.row : source.row + source.rows]
            target[to.row : to.row + to.rows] = part
    return contents


def codes_of(tensor: QTensor) -> np.ndarray:
    """The codes of a constant."""
    if tensor.codes is None:
        raise ValueError(f"tensor {tensor.name!r} is no constant")
    return tensor.codes


def streamed_outputs(graph: QuantizedGraph, config: AcceleratorConfig) -> set[str]:
    """Outputs that need no place in local memory: only Gemms write them, nothing reads them."""
    if config.dram != "readwrite":
        return set()
    names = {t.name for t in graph.tensors.values() if t.role is Role.OUTPUT}
    for op in graph.operations:
        names -= set(reads(op))
        if not isinstance(op, QGemm):
            names -= set(writes(op))
    return names


def _lifetimes(graph: QuantizedGraph, config: AcceleratorConfig) -> dict[str, range]:
    """For every tensor in local memory, the operations during which its place is taken."""
    last = len(graph.operations)
    residuals = residual_constants(graph)
    streamed = streamed_outputs(graph, config)
    spans: dict[str, range] = {}
    for index, op in enumerate(graph.operations):
        for name in [*reads(op), *writes(op)]:
            tensor = graph.tensors[name]
            if name in streamed or (tensor.role is Role.CONSTANT and name not in residuals):
                continue
            first = spans[name].start if name in spans else index
            spans[name] = range(first, index + 1)
    for tensor in graph.tensors.values():
        if tensor.role is Role.OUTPUT and tensor.name in spans:
            spans[tensor.name] = range(spans[tensor.name].start, last)
    if config.dram != "readwrite":
        # The host writes inputs before the start and reads outputs after the end.
        for tensor in graph.tensors.values():
            if tensor.role in (Role.INPUT, Role.OUTPUT) and tensor.name in spans:
                spans[tensor.name] = range(0, last)
    if config.dram == "none":
        for name in loaded_tensors(graph):
            spans.pop(name, None)
    return spans


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _first_fit(spans: dict[str, range], sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Word addresses for tensors with the given lifetimes, largest first, and the words used."""
    addresses: dict[str, int] = {}
    for name in sorted(spans, key=lambda n: (-sizes[n], spans[n].start, n)):
        taken = sorted(
            (addresses[other], addresses[other] + sizes[other])
            for other in addresses
            if _overlap(spans[name], spans[other])
        )
        address = 0
        for low, high in taken:
            if address + sizes[name] <= low:
                break
            address = max(address, high)
        addresses[name] = address
    used = max((addresses[n] + sizes[n] for n in addresses), default=0)
    return addresses, used


def plan_memory(graph: QuantizedGraph, config: AcceleratorConfig, minimum_staging: int) -> Plan:
    """Places tensors by their lifetimes; what is left of local memory is staging.

    minimum_staging: words that the schedule needs to stream constants and outputs. Raises
    CapacityError when the activations and that do not fit.
    """
    layouts = {t.name: Layout.of(t, config.word_bytes) for t in graph.tensors.values()}
    spans = _lifetimes(graph, config)
    sizes = {name: layouts[name].words for name in spans}
    addresses, used = _first_fit(spans, sizes)
    if used + minimum_staging > config.local_words:
        need = -(-(used + minimum_staging) * config.word_bytes // 1024)
        largest = max(spans, key=lambda n: sizes[n], default="-")
        raise CapacityError(
            f"the model needs {need} KiB of local memory ({used * config.word_bytes // 1024} of "
            f"them for activations, the largest {largest!r}), config {config.name!r} has "
            f"{config.local_kib}: raise local_kib"
        )
    dram: dict[str, int] = {}
    if config.dram == "readwrite":
        offset = 0
        for tensor in _external(graph):
            dram[tensor.name] = offset
            size = layouts[tensor.name].words * config.word_bytes
            offset += -(-size // config.burst_bytes) * config.burst_bytes
    local = {name: Place(addresses[name], layouts[name]) for name in spans}
    return Plan(local, dram, range(used, config.local_words))


def _external(graph: QuantizedGraph) -> list[QTensor]:
    return [t for t in graph.tensors.values() if t.role in (Role.INPUT, Role.OUTPUT)]
