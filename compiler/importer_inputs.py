"""The shapes of a model's inputs: from the file, and from the user where the file leaves them
open."""

from collections.abc import Mapping

import onnx
from onnx import TensorProto, TypeProto, helper

from gateformer.spec.errors import ModelError

INTEGERS = frozenset(
    {
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)
TYPES = INTEGERS | {TensorProto.FLOAT, TensorProto.BOOL}
"""Types of inputs."""
LARGEST_INPUT = 1 << 26
"""Elements of an input."""

Dims = list[int | str | None]
"""Declared dimensions: a size, the name of an open one, or nothing."""


def input_types(
    graph: onnx.GraphProto, given: Mapping[str, tuple[int, ...]], weights: Mapping[str, object]
) -> dict[str, TypeProto]:
    """The type of every input that is no weight, all dimensions known.

    given: shapes by input. A named dimension has one size in the whole model, so one input's shape
    is enough for the others that share its names. Raises ModelError.
    """
    values = {value.name: value for value in graph.input if value.name not in weights}
    declared = {name: _declared(value) for name, value in values.items()}
    for name in given:
        if name not in values:
            raise ModelError(
                f"a shape is given for {name!r}, but the inputs are "
                f"{', '.join(repr(known) for known in values)}"
            )
    sizes: dict[str, tuple[int, str]] = {}
    for name, shape in given.items():
        declared[name] = _given(name, declared[name], shape, sizes)
    types = {}
    missing: dict[str, list[str]] = {}
    for name, dims in declared.items():
        known: list[int] = []
        for axis, dim in enumerate(dims or []):
            size = sizes[dim][0] if isinstance(dim, str) and dim in sizes else dim
            if isinstance(size, int):
                known.append(size)
            else:
                missing.setdefault(name, []).append(f"{dim!r}" if dim else f"number {axis}")
        if dims is None:
            missing[name] = ["all"]
        elif name not in missing:
            _check(name, values[name], known)
            elem = values[name].type.tensor_type.elem_type
            types[name] = helper.make_tensor_type_proto(elem, known)
    if missing:
        what = "; ".join(f"{name!r}: {', '.join(dims)}" for name, dims in missing.items())
        raise ModelError(
            f"the file leaves dimensions of inputs open ({what}): give shapes, such as "
            f"--shape {next(iter(missing))}={_example(declared[next(iter(missing))])}"
        )
    return types


def _declared(value: onnx.ValueInfoProto) -> Dims | None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"input {value.name!r} is no tensor but {kind or 'has no type'}")
    tensor = value.type.tensor_type
    if tensor.elem_type not in TYPES:
        name = helper.tensor_dtype_to_string(tensor.elem_type) if tensor.elem_type else "no type"
        raise ModelError(
            f"input {value.name!r} holds {name.removeprefix('TensorProto.')}, no numbers that an "
            "engine or the host takes"
        )
    if not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    ]


def _given(
    name: str, declared: Dims | None, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]
) -> Dims:
    """The shape, if it fits; notes the sizes of named dimensions."""
    if declared is None:
        declared = [None] * len(shape)
    shown = [dim if dim is not None else "?" for dim in declared]
    fits = len(shape) == len(declared) and all(
        size > 0 and (size == dim or not isinstance(dim, int))
        for size, dim in zip(shape, declared, strict=True)
    )
    if not fits:
        raise ModelError(f"input {name!r} is {shown}: the shape {list(shape)} does not fit it")
    for size, dim in zip(shape, declared, strict=True):
        if isinstance(dim, str):
            known, source = sizes.setdefault(dim, (int(size), name))
            if known != size:
                raise ModelError(
                    f"dimension {dim!r} is {known} in input {source!r} and {size} in {name!r}"
                )
    return [int(size) for size in shape]


def _check(name: str, value: onnx.ValueInfoProto, shape: list[int]) -> None:
    count = 1
    for size in shape:
        if size < 1:
            raise ModelError(f"input {name!r} has shape {shape}: every size must be at least 1")
        count *= size
    if count > LARGEST_INPUT:
        raise ModelError(
            f"input {name!r} has shape {shape}: more than the {LARGEST_INPUT} elements that an "
            "input may have"
        )
    integer = value.type.tensor_type.elem_type in INTEGERS
    if shape and shape[0] != 1 and (len(shape) >= 3 or integer):
        raise ModelError(f"input {name!r} has shape {shape}: the batch (first axis) must be 1")


def _example(dims: Dims | None) -> str:
    return ",".join(str(dim) if isinstance(dim, int) else "1" for dim in dims or [1])
