"""Computes what does not depend on the inputs, within bounds, and the shapes of what does."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from gateformer.compiler.importer_file import first_line
from gateformer.compiler.importer_node import Node
from gateformer.compiler.importer_types import as_float32
from gateformer.spec.errors import ModelError

SMALL = 4096
"""Constants of at most this many elements take part in shape inference."""
LARGEST = 1 << 26
"""Elements of a tensor that depends on the inputs, or of a constant that is larger than what it is
computed from."""
SMALLER = frozenset({"Compress", "NonZero", "Unique"})
"""Operators whose results have a size that depends on data, but not one beyond their operands'."""


def fold(node: Node, constants: Mapping[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """The outputs of a node whose inputs are constant.

    The size is known before anything is allocated. Raises ModelError when it is too large, or when
    the operator cannot be computed.
    """
    if node.operator == "Constant":
        return [_constant(node)]
    if node.operator not in SMALLER:
        given = [constants[name].size for name in node.inputs if name]
        _check_range(node, constants)
        for kind in infer(node, {}, constants, opset).values():
            size = math.prod(dim.dim_value for dim in kind.tensor_type.shape.dim)
            if size > max(LARGEST, *given):
                raise too_large(node, size)
    try:
        arrays = [np.asarray(array) for array in evaluate(node, constants, opset)]
    except Exception as error:  # the reference implementation raises whatever it likes
        raise ModelError(f"{node} cannot be computed in advance: {first_line(error)}") from None
    return [as_float32(array) for array in arrays]


def evaluate(node: Node, inputs: Mapping[str, np.ndarray], opset: int) -> list[np.ndarray]:
    """The node's outputs for arrays, by ONNX's reference implementation."""
    feeds = {name: inputs[name] for name in node.inputs if name}
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(node.proto, opsets={"": opset}).run(None, feeds))


def infer(
    node: Node, types: Mapping[str, TypeProto], constants: Mapping[str, np.ndarray], opset: int
) -> dict[str, TypeProto]:
    """The types of the node's outputs. Raises ModelError unless every dimension comes out."""
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
        opsets = [helper.make_opsetid("", opset)]
        if schema.has_type_and_shape_inference_function:
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, node.proto, known, data, opset_imports=opsets
            )
        else:  # an operator that its opset defines by others
            inputs = [helper.make_value_info(name, kind) for name, kind in known.items()]
            outputs = [helper.make_empty_tensor_value_info(name) for name in node.outputs]
            graph = helper.make_graph([node.proto], "node", inputs, outputs)
            model = helper.make_model(graph, opset_imports=opsets)
            values = onnx.shape_inference.infer_shapes(model).graph.output
            inferred = {value.name: value.type for value in values}
    except Exception as error:  # raised from C++ under several types
        raise ModelError(f"{node}: its output shape is unknown: {first_line(error)}") from None
    for name in filter(None, node.outputs):
        result = inferred.get(name, TypeProto())
        what = result.WhichOneof("value")
        if what not in ("tensor_type", None):
            raise ModelError(f"{node}: its result is no tensor but a {what}")
        if result.tensor_type.elem_type == TensorProto.STRING:
            raise ModelError(f"{node}: its result is text, which no engine computes")
        dims = result.tensor_type.shape.dim
        known_rank = result.tensor_type.HasField("shape")
        if not known_rank or not all(dim.HasField("dim_value") for dim in dims):
            raise ModelError(f"{node}: its output shape depends on data")
    return {name: inferred[name] for name in filter(None, node.outputs)}


def check_size(node: Node, kind: TypeProto) -> None:
    """Raises ModelError for a tensor that is empty, or that no accelerator could hold."""
    shape = [dim.dim_value for dim in kind.tensor_type.shape.dim]
    if min(shape, default=1) < 1:
        raise ModelError(f"{node}: its result has shape {shape}, which holds nothing")
    if math.prod(shape) > LARGEST:
        raise too_large(node, math.prod(shape))


def too_large(node: Node, size: int) -> ModelError:
    return ModelError(f"{node}: its result has {size} elements, more than {LARGEST} are supported")


def _check_range(node: Node, constants: Mapping[str, np.ndarray]) -> None:
    """onnx's shape inference overflows on large ranges of floats."""
    if node.operator == "Range" and all(constants[name].size == 1 for name in node.inputs):
        start, limit, delta = (float(constants[name].flat[0]) for name in node.inputs)
        size = (limit - start) / delta if delta else math.inf
        if not size <= LARGEST:
            raise ModelError(f"{node}: its result has more than {LARGEST} elements")


def _constant(node: Node) -> np.ndarray:
    """The value of a Constant node."""
    name, value = next(iter(node.attributes.items()))
    match name:
        case "value" if value.data_type != TensorProto.STRING:
            try:
                return as_float32(numpy_helper.to_array(value))
            except Exception as error:  # raised from C++ and Python under several types
                raise ModelError(f"{node}: its value is damaged: {first_line(error)}") from None
        case "value_int" | "value_ints":
            return np.array(value, np.int64)
        case "value_float" | "value_floats":
            return np.array(value, np.float32)
        case "sparse_value":
            raise ModelError(f"{node}: its value is sparse: store it dense")
    raise ModelError(f"{node}: its value is text, which no engine computes")
