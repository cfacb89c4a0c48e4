"""ONNX file -> frozen node records with folded constants and known shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, TypeProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from gateformer.spec.errors import ModelError

OPSETS = range(13, 22)
DOMAINS = ("", "ai.onnx")
RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"}
)
SMALL = 4096
"""Constants of at most this many elements take part in shape inference."""


@dataclass(frozen=True)
class Node:
    """One operator of the model. name is unique; proto is what the host runs."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"node {self.name!r} (operator {self.operator!r})"


@dataclass(frozen=True)
class Value:
    """Shape and numpy type of a tensor that is not constant."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class ImportedModel:
    """A model without anything that can be computed in advance.

    nodes: in an order in which they run, only those an output depends on. constants: every constant
    tensor by name. values: every other tensor by name. inputs, outputs: names.
    """

    name: str
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def import_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ImportedModel:
    """Reads an ONNX file. shapes: the shape of each input that has dynamic dimensions.

    Raises ModelError when the file is missing, is not a valid ONNX model, has an unsupported opset
    or domain, lacks its external data, has a dimension without a value, a batch other than 1, or
    weights that are not finite.
    """
    proto, opset = _check(_load(path), path)
    graph = proto.graph
    types = _input_types(graph, dict(shapes or {}))
    constants: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        constants[tensor.name] = _finite(numpy_helper.to_array(tensor), f"weight {tensor.name!r}")
    inputs = tuple(name for name in types if name not in constants)
    nodes: list[Node] = []
    taken: set[str] = set()
    for index, node_proto in enumerate(graph.node):
        node = _record(node_proto, index, taken)
        if all(name in constants for name in node.inputs if name) and node.operator not in RANDOM:
            for name, array in zip(node.outputs, _evaluate(node, constants, opset), strict=False):
                constants[name] = _finite(array, f"constant of {node}")
        elif node.operator == "Shape":
            constants[node.outputs[0]] = _shape_of(node, types[node.inputs[0]])
        else:
            types.update(_infer(node, types, constants, opset))
            nodes.append(node)
    outputs = tuple(value.name for value in graph.output)
    kept = _live(nodes, outputs)
    used = {name for node in kept for name in node.inputs} | set(outputs)
    return ImportedModel(
        name=graph.name or path.stem,
        opset=opset,
        nodes=kept,
        constants={name: array for name, array in constants.items() if name in used},
        values={name: _value(kind) for name, kind in types.items() if name not in constants},
        inputs=inputs,
        outputs=outputs,
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from None
    except (DecodeError, ValueError, RecursionError):
        raise ModelError(f"{path} is not an ONNX file") from None
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is not an ONNX file: it holds no graph")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path}: the external data of its weights cannot be read: {_first_line(error)}"
        ) from None
    return model


def _check(model: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, int]:
    """The valid model without local functions, and its opset of ai.onnx."""
    try:
        if model.functions:
            model = inline_local_functions(model)
        onnx.checker.check_model(model)
        error = None
    except Exception as caught:  # raised from C++ under several types
        error = caught
    opset = _opset(model, path)
    for index, node in enumerate(model.graph.node):
        label = f"node {node.name or f'{node.op_type}_{index}'!r} (operator {node.op_type!r})"
        if node.domain not in DOMAINS:
            raise ModelError(
                f"{label}: no engine runs operators of domain {node.domain!r}; "
                "export the model with standard ONNX operators"
            )
        if not onnx.defs.has(node.op_type, opset, ""):
            raise ModelError(f"{label}: no engine has this operator, nor has opset {opset}")
    if error is not None:
        raise ModelError(f"{path} is not a valid ONNX model: {_first_line(error)}")
    return model, opset


def _opset(model: onnx.ModelProto, path: Path) -> int:
    versions = {item.domain: item.version for item in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise ModelError(
            f"{path} uses opset {opset}: {OPSETS[0]} to {OPSETS[-1]} are supported; "
            "export it again, opset 17 is best"
        )
    return opset


def _input_types(
    graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]
) -> dict[str, TypeProto]:
    """The type of every input, with the dimensions that `shapes` gives."""
    weights = {tensor.name for tensor in graph.initializer}
    types: dict[str, TypeProto] = {}
    for value in graph.input:
        if value.name in weights:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"input {value.name!r} is no tensor")
        tensor_type = value.type.tensor_type
        given = shapes.pop(value.name, None)
        declared = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor_type.shape.dim
        ]
        if not tensor_type.HasField("shape"):
            declared = ["?"] * len(given or ())
        shape = _resolve(value.name, declared, given)
        integer = tensor_type.elem_type in (TensorProto.INT32, TensorProto.INT64)
        if shape and shape[0] != 1 and (len(shape) >= 3 or integer):
            raise ModelError(
                f"input {value.name!r} has shape {list(shape)}: the batch (first axis) must be 1"
            )
        types[value.name] = helper.make_tensor_type_proto(tensor_type.elem_type, shape)
    if shapes:
        raise ModelError(
            f"a shape is given for {next(iter(shapes))!r}, but the inputs are "
            f"{', '.join(repr(name) for name in types)}"
        )
    return types


def _resolve(
    name: str, declared: list[int | str], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    if given is None:
        for axis, dim in enumerate(declared):
            if not isinstance(dim, int) or dim <= 0:
                raise ModelError(
                    f"input {name!r} has the dynamic dimension {dim!r}, axis {axis}: give its shape"
                )
        return tuple(int(dim) for dim in declared)
    fits = len(given) == len(declared) and all(
        size > 0 and (size == dim or not isinstance(dim, int))
        for size, dim in zip(given, declared, strict=True)
    )
    if not fits:
        raise ModelError(f"input {name!r} is {declared}: the shape {list(given)} does not fit it")
    return tuple(int(size) for size in given)


def _record(proto: onnx.NodeProto, index: int, taken: set[str]) -> Node:
    name = proto.name or f"{proto.op_type}_{index}"
    while name in taken:
        name += "'"
    taken.add(name)
    return Node(
        name=name,
        operator=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={a.name: helper.get_attribute_value(a) for a in proto.attribute},
        proto=proto,
    )


def evaluate(node: Node, inputs: Mapping[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """The node's outputs for arrays, by ONNX's reference implementation."""
    feeds = {name: inputs[name] for name in node.inputs if name}
    return list(ReferenceEvaluator(node.proto, opsets={"": opset}).run(None, feeds))


def _evaluate(node: Node, inputs: Mapping[str, np.ndarray], opset: int) -> list[np.ndarray]:
    try:
        return [np.asarray(array) for array in evaluate(node, inputs, opset)]
    except Exception as error:  # the reference implementation raises whatever it likes
        raise ModelError(f"{node} cannot be computed in advance: {_first_line(error)}") from None


def _shape_of(node: Node, kind: TypeProto) -> np.ndarray:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(_value(kind).shape[start:end], np.int64)


def _infer(
    node: Node, types: Mapping[str, TypeProto], constants: Mapping[str, np.ndarray], opset: int
) -> dict[str, TypeProto]:
    """The types of the node's outputs; every dimension must come out."""
    known: dict[str, TypeProto] = {}
    data: dict[str, TensorProto] = {}
    for name in filter(None, node.inputs):
        if name in constants:
            array = constants[name]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            known[name] = helper.make_tensor_type_proto(kind, array.shape)
            if array.size <= SMALL:
                data[name] = numpy_helper.from_array(array, name)
        elif name in types:
            known[name] = types[name]
        else:
            raise ModelError(f"{node} reads {name!r}, which nothing computes")
    try:
        schema = onnx.defs.get_schema(node.operator, opset, "")
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, node.proto, known, data, opset_imports=[helper.make_opsetid("", opset)]
        )
    except Exception as error:  # raised from C++ under several types
        raise ModelError(f"{node}: its output shape is unknown: {_first_line(error)}") from None
    for name in filter(None, node.outputs):
        dims = inferred[name].tensor_type.shape.dim if name in inferred else None
        if dims is None or not all(dim.HasField("dim_value") for dim in dims):
            raise ModelError(f"{node}: its output shape depends on data")
    return inferred


def _value(kind: TypeProto) -> Value:
    tensor = kind.tensor_type
    return Value(
        tuple(dim.dim_value for dim in tensor.shape.dim),
        helper.tensor_dtype_to_np_dtype(tensor.elem_type),
    )


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"{what} holds NaN or infinity")
    return array


def _live(nodes: list[Node], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed |= set(node.inputs)
    return tuple(reversed(kept))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
