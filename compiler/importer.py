"""ONNX file -> frozen node records with folded constants and known shapes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TypeProto, helper

from gateformer.compiler.grid import Grid
from gateformer.compiler.importer_branches import branch
from gateformer.compiler.importer_checks import check_operands
from gateformer.compiler.importer_file import captured, read_file
from gateformer.compiler.importer_folding import check_size, evaluate, fold, infer
from gateformer.compiler.importer_inputs import input_types
from gateformer.compiler.importer_node import Node, record
from gateformer.compiler.importer_qdq import PAIR, fold_pair, remove_pairs
from gateformer.spec.errors import ModelError

__all__ = ["ImportedModel", "Node", "Value", "evaluate", "import_model"]

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
MASKING = frozenset(
    {
        "Add",
        "Clip",
        "Concat",
        "Equal",
        "Expand",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Where",
    }
)
"""Operators that may read infinity: masks are added, selected and compared."""

T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """Shape and numpy type of a tensor that is not constant."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Absorbed:
    """A node of the file that is not executed, and why."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True)
class ImportedModel:
    """A model without anything that can be computed in advance.

    nodes: in an order in which they run, only those an output depends on. constants: every constant
    tensor by name. values: every other tensor by name. inputs, outputs: names. No tensor is of
    another float type than float32. quantization: the grids of a quantization-aware file by the
    value or constant that is rounded to them. absorbed: the other nodes of the file.
    """

    name: str
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    quantization: Mapping[str, Grid] = field(default_factory=dict)
    absorbed: tuple[Absorbed, ...] = ()


def import_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ImportedModel:
    """Reads an ONNX file.

    shapes: shapes of inputs that have open dimensions; a named dimension is the same in all inputs.
    Raises ModelError when the file is missing or damaged, is not a valid ONNX model, has an
    unsupported opset, domain or kind of tensor, lacks some of its weights, has a dimension without
    a value, a batch other than 1, weights that are not finite, or tensors beyond all memory.
    """
    file = read_file(path)
    graph = file.model.graph
    everything = [(node.name, node.op_type) for node in graph.node]
    grids = remove_pairs(file)
    types = input_types(graph, shapes or {}, file.weights)
    inputs = tuple(types)
    outputs = tuple(value.name for value in graph.output)
    folding = _Folding(file.opset, types, dict(file.weights))
    folding.run(_live(graph.node, outputs, captured, lambda node: node.output), outputs)
    nodes = tuple(_live(folding.nodes, outputs, lambda node: node.inputs, lambda n: n.outputs))
    used = {name for node in nodes for name in node.inputs} | set(outputs)
    constants = {name: array for name, array in folding.constants.items() if name in used}
    for name, array in constants.items():
        _check_finite(array, folding.origin.get(name, f"weight {name!r}"), name, nodes)
    return ImportedModel(
        name=graph.name or path.stem,
        opset=file.opset,
        nodes=nodes,
        constants=constants,
        values={name: _value(kind) for name, kind in types.items() if name not in constants},
        inputs=inputs,
        outputs=outputs,
        quantization={n: grid for n, grid in (grids | folding.grids).items() if n in used},
        absorbed=_absorbed(everything, graph, folding, nodes),
    )


def _absorbed(
    everything: list[tuple[str, str]],
    graph: onnx.GraphProto,
    folding: "_Folding",
    nodes: tuple[Node, ...],
) -> tuple[Absorbed, ...]:
    """What became of the nodes of the file that are not among `nodes`."""
    left = {node.name for node in graph.node}
    kept = {node.name for node in nodes}

    def reason(name: str) -> str:
        if name not in left:
            return "its scale is the quantizer's"
        return folding.done.get(name, "no output depends on it")

    return tuple(Absorbed(n, operator, reason(n)) for n, operator in everything if n not in kept)


class _Folding:
    """Goes through a graph once; computes what is constant and infers the rest.

    types: of the inputs; those of all values that are not constant are added. constants: the
    weights; constants that only constants depend on are dropped as soon as they are used up.
    """

    def __init__(
        self, opset: int, types: dict[str, TypeProto], constants: dict[str, np.ndarray]
    ) -> None:
        self._opset = opset
        self._types = types
        self._taken: set[str] = set()
        self._readers: Counter[str] = Counter()
        self.constants = constants
        self.grids: dict[str, Grid] = {}
        """Of each constant that a quantization-aware file holds as integers."""
        self.nodes: list[Node] = []
        self.done: dict[str, str] = {}
        """Of each node that need not run: why."""
        self.origin: dict[str, str] = {}
        """Of each computed constant: what to call it in messages."""

    def run(self, protos: list[onnx.NodeProto], outputs: tuple[str, ...]) -> None:
        for proto in protos:
            self._readers.update(captured(proto))
        self._readers.update(outputs)
        index = 0
        waiting = protos[::-1]
        while waiting:
            node = record(waiting.pop(), index, self._taken)
            index += 1
            if node.operator == "If":
                inner = branch(node, self._condition(node))
                for proto in inner:
                    self._readers.update(captured(proto))
                waiting += inner[::-1]
                self.done[node.name] = "its condition is constant"
            else:
                self._node(node)

    def _condition(self, node: Node) -> bool:
        condition = self.constants.get(node.inputs[0])
        if condition is None or condition.size != 1:
            raise ModelError(f"{node}: no engine branches, and its condition depends on the input")
        return bool(condition.reshape(()))

    def _node(self, node: Node) -> None:
        if node.operator in LOOPS:
            raise ModelError(f"{node}: no engine loops; export the model with its loops unrolled")
        training = node.attributes.get("training_mode") or self._trains(node)
        if node.operator in RANDOM or training:
            raise ModelError(f"{node}: it is for training; export the model in evaluation mode")
        if all(name in self.constants for name in node.inputs if name):
            for name, array in zip(node.outputs, self._fold(node), strict=False):
                self.constants[name] = array
                self.origin[name] = f"constant of {node}"
            self._release(node)
            self.done[node.name] = "computed in advance"
        elif node.operator in ("Shape", "Size"):
            name = node.outputs[0]
            self.constants[name] = _measure(node, self._types)
            self.done[node.name] = "computed in advance"
            self.origin[name] = f"constant of {node}"
        else:
            kinds = infer(node, self._types, self.constants, self._opset)
            for kind in kinds.values():
                check_size(node, kind)
            shapes = [self._shape(name) for name in node.inputs]
            result = _value(next(iter(kinds.values()))).shape
            check_operands(node, shapes, result, self.constants)
            self._types.update(kinds)
            self.nodes.append(node)

    def _fold(self, node: Node) -> list[np.ndarray]:
        source = self.grids.get(node.inputs[0]) if node.inputs else None
        if node.operator in PAIR:
            array, source = fold_pair(node, self.constants)
            arrays = [array]
        else:
            arrays = fold(node, self.constants, self._opset)
            if source and node.operator == "Transpose" and source.axis is not None:
                turned = range(arrays[0].ndim)[::-1]
                source = source.along(tuple(node.attributes.get("perm", turned)).index(source.axis))
            elif node.operator not in ("Transpose", "Identity"):
                source = None
        if source:
            self.grids[node.outputs[0]] = source
        return arrays

    def _shape(self, name: str) -> tuple[int, ...] | None:
        if not name:
            return None
        constant = self.constants.get(name)
        return _value(self._types[name]).shape if constant is None else constant.shape

    def _trains(self, node: Node) -> bool:
        if node.operator != "Dropout" or len(node.inputs) < 3 or not node.inputs[2]:
            return False
        mode = self.constants.get(node.inputs[2])
        return mode is None or bool(mode.any())

    def _release(self, node: Node) -> None:
        """Drops constants that nothing else reads."""
        for name in set(node.inputs) - {""}:
            self._readers[name] -= 1
            if not self._readers[name]:
                del self.constants[name]


def _measure(node: Node, types: Mapping[str, TypeProto]) -> np.ndarray:
    if node.inputs[0] not in types:
        raise ModelError(f"{node} reads {node.inputs[0]!r}, which nothing computes")
    shape = _value(types[node.inputs[0]]).shape
    if node.operator == "Size":
        return np.array(np.prod(shape, dtype=np.int64))
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def _value(kind: TypeProto) -> Value:
    tensor = kind.tensor_type
    return Value(
        tuple(dim.dim_value for dim in tensor.shape.dim),
        helper.tensor_dtype_to_np_dtype(tensor.elem_type),
    )


def _check_finite(array: np.ndarray, what: str, name: str, nodes: tuple[Node, ...]) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    readers = {node.operator for node in nodes if name in node.inputs}
    if np.isnan(array).any() or not readers <= MASKING:
        raise ModelError(f"{what} holds NaN or infinity")


def _live(
    nodes: Sequence[T],
    outputs: Iterable[str],
    reads: Callable[[T], Iterable[str]],
    makes: Callable[[T], Iterable[str]],
) -> list[T]:
    """The nodes that the outputs depend on."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(makes(node)):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]
