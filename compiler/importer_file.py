"""Reads an ONNX file: its graph, and its weights apart from it."""

import heapq
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor
from onnx.inliner import inline_local_functions

from gateformer.compiler.importer_types import as_float32, to_float32
from gateformer.spec.errors import ModelError

OPSETS = range(13, 22)
DOMAINS = ("", "ai.onnx")
EXTENSIONS = frozenset({("com.microsoft", "QuantizeLinear"), ("com.microsoft", "DequantizeLinear")})
"""Operators of other domains that are read: onnxruntime writes 16-bit grids so below opset 21."""
INTEGER_FORMATS = ("QLinear", "Integer", "DynamicQuantize", "QGemm", "QAttention")
"""Parts of the names of operators that compute in integers of their own."""


@dataclass
class ModelFile:
    """model: the graph in an order in which it runs, without local functions and without its
    weights, which are inputs in their stead. weights: by name. converted: whether another float
    type became float32."""

    model: onnx.ModelProto
    weights: dict[str, np.ndarray]
    opset: int
    converted: bool


def read_file(path: Path) -> ModelFile:
    """Reads and checks a model and everything that it keeps in other files.

    float16, bfloat16 and float64 become float32. Raises ModelError when the file is missing or
    damaged, is not a valid ONNX model, has an unsupported opset or an operator of another domain,
    or lacks some of its weights.
    """
    model = _parse(path)
    weights, converted = _weights(model, path)
    model = _without_weights(model, weights)
    opset = _opset(model, path)
    if model.functions:
        try:
            model = inline_local_functions(model)
        except Exception as error:  # raised from C++ under several types
            raise ModelError(
                f"{path}: its local functions are not valid: {first_line(error)}"
            ) from None
    _check_operators(model.graph, opset)
    _sort(model.graph)
    try:
        onnx.checker.check_model(_with_shapes(model))
    except Exception as error:  # raised from C++ under several types
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(error)}") from None
    _name(model.graph)
    converted |= to_float32(model.graph)
    return ModelFile(model, weights, opset, converted)


def with_weights(file: ModelFile) -> bytes:
    """The model as one ONNX file. Raises ModelError where it would be larger than 2 GiB."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    used = {name for node in model.graph.node for name in captured(node)}
    used |= {value.name for value in model.graph.output}
    inputs = [value for value in model.graph.input if value.name not in file.weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, array in file.weights.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    try:
        return model.SerializeToString()
    except Exception:  # protobuf has its own types
        raise ModelError("the model is larger than the 2 GiB that onnxruntime takes") from None


def captured(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, its subgraphs' from the graph around them included."""
    names = set(node.input)
    for graph in subgraphs(node):
        inner = {value.name for value in graph.input} | {t.name for t in graph.initializer}
        for child in graph.node:
            names |= captured(child) - inner
            inner |= set(child.output)
        names |= {value.name for value in graph.output} - inner
    return names - {""}


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    single = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return single + [graph for a in node.attribute for graph in a.graphs]


def label(node: onnx.NodeProto, index: int) -> str:
    """What messages call a node."""
    return f"node {node.name or f'{node.op_type}_{index}'!r} (operator {node.op_type!r})"


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from None
    except (DecodeError, ValueError, RecursionError):
        raise ModelError(f"{path} is not an ONNX file, or is cut off") from None
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is not an ONNX file: it holds no graph")
    if not _is_text(model):
        raise ModelError(f"{path} is damaged: a name in it is not UTF-8")
    return model


def _is_text(message: Message) -> bool:
    """Whether all strings are valid: protobuf hands out others as bytes."""
    if isinstance(message, TensorProto):
        # Its other fields are numbers, and reading them would copy them.
        strings = [
            message.name,
            *(text for e in message.external_data for text in (e.key, e.value)),
        ]
        return all(isinstance(text, str) for text in strings)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) for text in texts):
                return False
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            messages = [value] if isinstance(value, Message) else value
            if not all(_is_text(inner) for inner in messages):
                return False
    return True


def _weights(model: onnx.ModelProto, path: Path) -> tuple[dict[str, np.ndarray], bool]:
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelError(f"weight {name!r} is sparse: store it dense")
    weights: dict[str, np.ndarray] = {}
    converted = False
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            raise ModelError(f"{path} holds two weights of the name {tensor.name!r}")
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"weight {tensor.name!r} is text, which nothing here computes")
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"weight {tensor.name!r} has a negative dimension")
        external = tensor.data_location == TensorProto.EXTERNAL
        try:
            if external:
                # A copy, so that the data lives no longer than the array is made from it.
                content = TensorProto()
                content.CopyFrom(tensor)
                load_external_data_for_tensor(content, str(path.parent))
                tensor = content
            array = numpy_helper.to_array(tensor)
        except Exception as error:  # raised from C++ and Python under several types
            if external:
                raise ModelError(
                    f"weight {tensor.name!r}: its external data cannot be read: {first_line(error)}"
                ) from None
            raise ModelError(
                f"weight {tensor.name!r} does not hold what its type and shape "
                f"{list(tensor.dims)} ask for"
            ) from None
        weights[tensor.name] = as_float32(array)
        converted |= weights[tensor.name] is not array
    return weights, converted


def _without_weights(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model with inputs in place of its weights: small however large the weights are."""
    del model.graph.initializer[:]
    small = onnx.ModelProto()
    small.CopyFrom(model)
    inputs = [value for value in small.graph.input if value.name not in weights]
    del small.graph.input[:]
    small.graph.input.extend(inputs)
    for name, array in weights.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        small.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return small


def _name(graph: onnx.GraphProto) -> None:
    """Gives every node a name of its own; one without is called by its operator and place."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "'"
        taken.add(node.name)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, any shape in place of those that its outputs lack: exporters leave them out where
    they branch, onnxruntime does not mind, and the importer infers them all."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graphs = [copy.graph]
    while graphs:
        graph = graphs.pop()
        for value in graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.shape.SetInParent()
        graphs += [inner for node in graph.node for inner in subgraphs(node)]
    return copy


def _opset(model: onnx.ModelProto, path: Path) -> int:
    versions = {item.domain: item.version for item in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise ModelError(
            f"{path} uses opset {opset}: {OPSETS[0]} to {OPSETS[-1]} are supported; "
            "export it again, opset 17 is best"
        )
    return opset


def _check_operators(graph: onnx.GraphProto, opset: int) -> None:
    for index, node in enumerate(graph.node):
        if any(part in node.op_type for part in INTEGER_FORMATS):
            raise ModelError(
                f"{label(node, index)}: its integers are not the hardware's; export the quantized "
                "model in the QDQ format, with QuantizeLinear and DequantizeLinear"
            )
        if (node.domain, node.op_type) in EXTENSIONS:
            continue
        if node.domain not in DOMAINS:
            raise ModelError(
                f"{label(node, index)}: no engine runs operators of domain {node.domain!r}; "
                "export the model with standard ONNX operators"
            )
        if not onnx.defs.has(node.op_type, opset, ""):
            raise ModelError(
                f"{label(node, index)}: no engine has this operator, nor has opset {opset}"
            )
        for inner in subgraphs(node):
            _check_operators(inner, opset)


def _sort(graph: onnx.GraphProto) -> None:
    """Orders the nodes so that each comes after those that it reads; otherwise as they are."""
    maker: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in maker:
                raise ModelError(f"{label(node, index)}: another node computes {name!r} as well")
            maker[name] = index
    given = {value.name for value in graph.input}
    for index, node in enumerate(graph.node):
        for name in sorted(captured(node) - given - maker.keys()):
            raise ModelError(f"{label(node, index)} reads {name!r}, which nothing computes")
    reads = [{maker[n] for n in captured(node) if n in maker} for node in graph.node]
    if all(not made or max(made) < index for index, made in enumerate(reads)):
        return
    readers: dict[int, list[int]] = {}
    for index, made in enumerate(reads):
        for other in made:
            readers.setdefault(other, []).append(index)
    missing = [len(made) for made in reads]
    ready = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for index in readers.get(order[-1], []):
            missing[index] -= 1
            if not missing[index]:
                heapq.heappush(ready, index)
    if len(order) < len(missing):
        stuck = next(index for index, count in enumerate(missing) if count)
        raise ModelError(
            f"{label(graph.node[stuck], stuck)}: it depends on its own result: the graph is a cycle"
        )
    nodes = [graph.node[index] for index in order]
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
