"""Other float types become float32, in which the model is executed and from which it is
quantized."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OTHER_FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "stash_type", "output_datatype", "output_dtype"})
"""Attributes that name the type of a result."""
_DTYPES = frozenset(helper.tensor_dtype_to_np_dtype(kind) for kind in OTHER_FLOATS)
_LARGEST = float(np.finfo(np.float32).max)


def as_float32(array: np.ndarray) -> np.ndarray:
    """The array itself, or its float32 form if it is of another float type.

    A finite value beyond float32's range, such as the least float64 in a mask, becomes the largest.
    """
    if array.dtype not in _DTYPES:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if array.dtype == np.float64:
        beyond = np.isinf(result) & np.isfinite(array)
        result = np.where(beyond, np.copysign(np.float32(_LARGEST), result), result)
    return result


def tensor_float32(tensor: TensorProto) -> TensorProto:
    """A tensor of an attribute, in float32 if it is of another float type."""
    if tensor.data_type not in OTHER_FLOATS:
        return tensor
    return numpy_helper.from_array(as_float32(numpy_helper.to_array(tensor)), tensor.name)


def to_float32(graph: onnx.GraphProto) -> bool:
    """Replaces other float types in all declarations, constants and casts of a graph and its
    subgraphs. Returns whether there were any."""
    changed = _declare(value.type for value in (*graph.input, *graph.output, *graph.value_info))
    for tensor in graph.initializer:
        if tensor.data_type in OTHER_FLOATS:
            tensor.CopyFrom(tensor_float32(tensor))
            changed = True
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in OTHER_FLOATS:
                attribute.i = TensorProto.FLOAT
                changed = True
            elif attribute.t.data_type in OTHER_FLOATS:
                attribute.t.CopyFrom(tensor_float32(attribute.t))
                changed = True
            for inner in (attribute.g, *attribute.graphs):
                changed |= to_float32(inner)
    return changed


def _declare(types: Iterable[onnx.TypeProto]) -> bool:
    changed = False
    for kind in types:
        if kind.tensor_type.elem_type in OTHER_FLOATS:
            kind.tensor_type.elem_type = TensorProto.FLOAT
            changed = True
    return changed
