"""Whether a model fits a configuration, told from sizes alone."""

from dataclasses import dataclass

from gateformer.compiler.graph import Gemm, Graph, Norm, Operation, Role, Softmax, View
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ModelError


@dataclass(frozen=True)
class Limit:
    """One resource: how much the model needs, how much the configuration has, and what follows."""

    resource: str
    needs: int
    has: int
    fits: bool
    note: str = ""


def limits(graph: Graph, config: AcceleratorConfig) -> list[Limit]:
    """What the model asks of a configuration.

    Local memory is counted as the most bytes of results that are needed at one time, without the
    staging of weights.
    """
    form = IntegerForm(graph)
    result = []
    contraction = max((op.a.cols for op in form.gemms), default=0)
    parts = -(-contraction // config.k_max)
    note = "" if parts <= 1 else f"contractions run in {parts} parts"
    result.append(Limit("k_max", contraction, config.k_max, True, note))
    for resource, kind, has in (
        ("softmax_length", Softmax, config.softmax_length),
        ("norm_length", Norm, config.norm_length),
    ):
        needs = max((op.source.cols for op in graph.operations if isinstance(op, kind)), default=0)
        fits = needs <= has
        note = "" if fits else f"a configuration with {resource} = {needs} or more is needed"
        result.append(Limit(resource, needs, has, fits, note))
    result.append(_memory(graph, form, config))
    try:
        form.check(config)
    except ModelError as error:
        result.append(Limit("integer form", 1, 0, False, str(error)))
    return result


def _memory(graph: Graph, form: IntegerForm, config: AcceleratorConfig) -> Limit:
    needs = _most_alive(graph, form)
    if config.dram == "none":
        needs += sum(t.rows * t.cols for t in graph.tensors.values() if t.data is not None)
    fits = needs <= config.local_bytes or config.dram == "readwrite"
    note = ""
    if needs > config.local_bytes:
        note = "results spill to DRAM" if fits else "local_kib must hold all results"
        if config.dram == "none":
            note = "local_kib must hold all results and weights; or a configuration with DRAM"
    return Limit("local memory", needs, config.local_bytes, fits, note)


def _most_alive(graph: Graph, form: IntegerForm) -> int:
    """The largest sum of the tensors that are written and still read later, in bytes."""
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    for index, op in enumerate(graph.operations):
        for view in _views(op):
            first.setdefault(view.tensor, index)
            last[view.tensor] = index
    change = [0] * (len(graph.operations) + 1)
    for tensor in graph.tensors.values():
        if tensor.data is not None or tensor.name not in first:
            continue
        width = (tensor.name in form.narrow) + 2 * (tensor.name in form.wide)
        size = tensor.rows * tensor.cols * width
        end = len(graph.operations) - 1 if tensor.role == Role.OUTPUT else last[tensor.name]
        change[0 if tensor.role == Role.INPUT else first[tensor.name]] += size
        change[end + 1] -= size
    most = alive = 0
    for step in change:
        alive += step
        most = max(most, alive)
    return most


def _views(op: Operation) -> list[View]:
    if isinstance(op, Gemm):
        return [view for view in (op.a, op.b, op.residual, op.out) if view is not None]
    return [op.source, op.target]
