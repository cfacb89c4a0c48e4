"""What becomes of every node of a model: which engine runs it, what it costs, and what no engine
can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Softmax
from gateformer.compiler.importer import ImportedModel, Node
from gateformer.compiler.lowering import lower
from gateformer.compiler.lowering_context import ENGINE_OPERATORS, PRODUCTS, TRANSPARENT
from gateformer.compiler.lowering_matrices import UnsupportedError
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantize_grids import FileGrids
from gateformer.spec.errors import ModelError

Place = Literal[
    "ARRAY",
    "EPILOGUE",
    "VECTOR",
    "moves data",
    "host before",
    "host after",
    "constant",
    "none",
    "open",
]
"""ARRAY, EPILOGUE, VECTOR: the engine that runs a node. moves data: costs nothing, since its reader
finds the elements where they are. constant: nothing is left to run. none: no engine can do it.
open: it waits for a node that no engine can do."""
Computed = Gemm | Softmax | Norm
RECORD_BYTES = 8
"""Bytes of a scale record: every weight row has one."""


@dataclass
class NodeReport:
    """One node: where it runs, and why or into which product it is fused.

    weight_bytes: int8 codes and scale records. activation_bytes: int8 and int16 codes of results.
    """

    node: str
    operator: str
    place: Place
    reason: str = ""
    macs: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0


@dataclass(frozen=True)
class Inspection:
    """nodes: every node of the file, those that run first. refusals: what no engine can do, by
    node; the key is empty for what concerns no single node. graph: None where nothing is left that
    could run. scales: of a quantization-aware file, how many of its activations' scales the
    accelerator takes and how many there are; the others belong to values inside an engine, or to
    ones that it keeps finer."""

    nodes: tuple[NodeReport, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    graph: Graph | None = None
    scales: tuple[int, int] = (0, 0)

    @property
    def supported(self) -> bool:
        return not self.refusals

    def count(self, place: Place) -> int:
        return sum(report.place == place for report in self.nodes)

    @property
    def totals(self) -> NodeReport:
        """The sums of all nodes."""
        return NodeReport(
            "total",
            "",
            "open" if self.refusals else "ARRAY",
            macs=sum(report.macs for report in self.nodes),
            weight_bytes=sum(report.weight_bytes for report in self.nodes),
            activation_bytes=sum(report.activation_bytes for report in self.nodes),
        )


def inspect(model: ImportedModel) -> Inspection:
    """Lowers the model and tells what became of every node.

    It does not end at a node that no engine can do: the model is cut there, the node's operands
    become outputs and its results inputs, and lowered again, so that all such nodes are found.
    """
    refusals: dict[str, str] = {}
    cuts: set[str] = set()
    graph, current, taken = None, model, 0
    while current.outputs:
        try:
            graph = lower(current)
            tensors = FileGrids(IntegerForm(graph)).narrow
            taken = len({id(graph.tensors[name].grid) for name in tensors})
            break
        except UnsupportedError as error:
            # What a cut made an output may be what no engine can return, and no fault of the model.
            ends = _reached(current, error.node) & cuts
            if not ends:
                if error.node.name in refusals:
                    break
                refusals[error.node.name] = error.reason
                current = _cut(current, error.node, cuts)
                continue
        except ModelError as error:
            ends = set(cuts)
            if not ends:
                if not refusals:
                    refusals[""] = str(error)
                break
        cuts -= ends
        current = _pruned(current, tuple(name for name in current.outputs if name not in ends))
    reports = _reports(model, graph, refusals)
    absorbed = [NodeReport(a.node, a.operator, "constant", a.reason) for a in model.absorbed]
    given = sum(name in model.values for name in model.quantization)
    return Inspection((*reports, *absorbed), refusals, graph, (taken, given))


def _cut(model: ImportedModel, node: Node, cuts: set[str]) -> ImportedModel:
    """The model without a node: its operands are outputs, which are added to `cuts`, its results
    inputs."""
    computed = {name for other in model.nodes for name in other.outputs}
    ends = {name for name in node.inputs if name in computed} - set(model.outputs)
    cuts |= ends
    outputs = tuple(name for name in model.outputs if name not in node.outputs)
    nodes = tuple(other for other in model.nodes if other.name != node.name)
    inputs = (*model.inputs, *filter(None, node.outputs))
    without = replace(model, nodes=nodes, inputs=inputs)
    return _pruned(without, (*outputs, *sorted(ends)))


def _pruned(model: ImportedModel, outputs: tuple[str, ...]) -> ImportedModel:
    """The part of a model that some outputs depend on."""
    needed = set(outputs)
    nodes = []
    for node in reversed(model.nodes):
        if needed & set(node.outputs):
            nodes.append(node)
            needed |= set(node.inputs)
    return replace(model, nodes=tuple(nodes[::-1]), outputs=outputs)


def _reached(model: ImportedModel, node: Node) -> set[str]:
    """A node's results and what only moves them."""
    names = set(node.outputs)
    for other in model.nodes:
        if other.operator in TRANSPARENT and names & set(other.inputs):
            names |= set(other.outputs)
    return names


def _reports(
    model: ImportedModel, graph: Graph | None, refusals: Mapping[str, str]
) -> list[NodeReport]:
    operations = () if graph is None else _computed(graph)
    owners = _owners(model, operations)
    computed = {name for op in operations for name in op.nodes}
    hosted: dict[str, tuple[Place, str]] = {}
    if graph is not None:
        before = {node.name for node in graph.host.before.graph.node}
        for operation in graph.host.operations:
            place: Place = "host before" if operation.node in before else "host after"
            hosted[operation.node] = place, operation.reason
    reports = {}
    waiting = {name for node in model.nodes if node.name in refusals for name in node.outputs}
    for node in model.nodes:
        report = NodeReport(node.name, node.operator, "open", "nothing is known of it")
        reports[node.name] = report
        waits = bool(waiting & set(node.inputs))
        if node.name in refusals:
            report.place, report.reason = "none", refusals[node.name]
        elif node.name in hosted and not waits and node.name not in computed:
            report.place, report.reason = hosted[node.name]
        elif node.name in owners and node.operator not in TRANSPARENT:
            report.place, report.reason = _engine(node, owners[node.name], model, graph)
            if node.name in hosted:  # the array's part is told by the engine
                report.reason = hosted[node.name][1]
        elif node.operator in TRANSPARENT and graph is not None and node.name not in hosted:
            report.place, report.reason = "moves data", ""
        elif graph is not None and not refusals and node.name not in hosted:
            # Such as a bias of zeros.
            report.place, report.reason = "moves data", "it changes nothing"
        else:
            report.reason = "it waits for a node that no engine can do"
            waiting |= set(node.outputs)
    if graph is not None:
        _add_costs(graph, model, reports)
    return list(reports.values())


def _computed(graph: Graph) -> tuple[Computed, ...]:
    return tuple(op for op in graph.operations if not isinstance(op, Copy))


def _owners(model: ImportedModel, operations: tuple[Computed, ...]) -> dict[str, Computed]:
    """The operation that computes each node. A node that left no trace in an operation, such as the
    parts of a GELU or of a norm, belongs to that of its readers; but not what an engine starts."""
    owners: dict[str, Computed] = {}
    for op in operations:
        for name in op.nodes:
            owners.setdefault(name, op)
    readers: dict[str, list[Node]] = {}
    for node in model.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for node in reversed(model.nodes):
        if node.operator in ENGINE_OPERATORS | {"Softmax"}:
            continue
        for reader in (reader for name in node.outputs for reader in readers.get(name, [])):
            if reader.name in owners:
                owners.setdefault(node.name, owners[reader.name])
    return owners


def _engine(
    node: Node, op: Computed, model: ImportedModel, graph: Graph | None
) -> tuple[Place, str]:
    if not isinstance(op, Gemm):
        masks = {mask.removesuffix("/mask") for mask in graph.masks} if graph else set()
        if masks & set(node.inputs):
            return "VECTOR", f"its mask is the length of {op.name}"
        name = "softmax" if isinstance(op, Softmax) else "norm"
        return "VECTOR", name if op.nodes and node.name == op.nodes[0] else f"part of {op.name}"
    if node.operator in PRODUCTS:
        return "ARRAY", ""
    kinds = {other.name: other.operator for other in model.nodes}
    product = next((name for name in op.nodes if kinds.get(name) in PRODUCTS), op.name)
    return "EPILOGUE", f"of {product}"


def _add_costs(graph: Graph, model: ImportedModel, reports: Mapping[str, NodeReport]) -> None:
    form = IntegerForm(graph)
    kinds = {node.name: node.operator for node in model.nodes}
    for op in _computed(graph):
        names = [name for name in op.nodes if name in reports]
        main = next((name for name in names if kinds[name] in PRODUCTS), names[0] if names else "")
        if not main:
            continue
        report = reports[main]
        out = op.out if isinstance(op, Gemm) else op.target
        width = (out.tensor in form.narrow) + 2 * (out.tensor in form.wide)
        report.activation_bytes += out.rows * out.cols * width
        if isinstance(op, Gemm):
            report.macs += op.macs
            weights = form.weights(op)
            if weights is not None:
                report.weight_bytes += weights.rows * (weights.cols + RECORD_BYTES)
