"""Quantization-aware files: QuantizeLinear and DequantizeLinear nodes become recorded grids.

A pair of both rounds an activation; it leaves the graph, which computes in floats, and the grid
that it rounds to is recorded for the quantizer (the QDQ format of onnxruntime, PyTorch and
Brevitas). Weights behind DequantizeLinear become floats that lie on their recorded grid.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gateformer.compiler.grid import Grid
from gateformer.compiler.importer_branches import rename
from gateformer.compiler.importer_file import ModelFile, captured, label
from gateformer.compiler.importer_node import Node, record
from gateformer.compiler.importer_types import as_float32
from gateformer.spec.errors import ModelError

PAIR = ("QuantizeLinear", "DequantizeLinear")
CARRIERS = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that may stand between the two nodes of a pair: they only move codes."""
UNBOUNDED = frozenset({"BatchNormalization", "Conv", "Gemm", "LayerNormalization", "MatMul", "Sub"})
"""Operators with negative results of any size."""
LEAST = {"Erf": -1.0, "Tanh": -1.0}
"""The least result of an operator."""
TOLERANCE = 1e-3
"""How far below zero a value must reach for a ReLU to matter."""


def remove_pairs(file: ModelFile) -> dict[str, Grid]:
    """Removes the pairs around activations and returns the grids by the float value they round.

    A pair that also is a ReLU becomes one: onnxruntime's quantizer drops a ReLU where the grid
    begins at zero, since rounding to that grid does the same. Raises ModelError for integers that
    are computed with, for scales that are not constant, and for a value that is rounded to two
    grids.
    """
    if any(node.op_type in PAIR for node in file.model.graph.node):
        return _Pairs(file).run()
    return {}


class _Pairs:
    def __init__(self, file: ModelFile) -> None:
        self._graph = file.model.graph
        self._weights = file.weights
        self._constants = set(file.weights)
        self._makers = {name: node for node in self._graph.node for name in node.output}
        self._codes: dict[str, tuple[str, Grid]] = {}
        """Of each integer tensor: the float value it stands for, and its grid."""
        self._floats: dict[str, str] = {}
        """Of each DequantizeLinear's result: the value that was rounded."""
        self._rectified: dict[str, str] = {}
        self._grids: dict[str, Grid] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> dict[str, Grid]:
        for index, node in enumerate(self._graph.node):
            reads = captured(node)
            if reads <= self._constants:
                self._constants |= set(node.output)
                self._nodes.append(node)
            elif node.op_type == "QuantizeLinear":
                self._quantize(node, index)
            elif node.op_type == "DequantizeLinear":
                self._dequantize(node, index)
            elif reads & self._codes.keys():
                self._carry(node, index)
            else:
                rename(node, self._floats)
                self._nodes.append(node)
        for value in self._graph.output:
            if value.name in self._codes:
                raise ModelError(
                    f"output {value.name!r} holds integer codes: let the model end in "
                    "DequantizeLinear"
                )
            if value.name in self._floats:
                source = self._floats[value.name]
                self._nodes.append(helper.make_node("Identity", [source], [value.name]))
        nodes = []
        for node in self._nodes:
            nodes.append(onnx.NodeProto())
            nodes[-1].CopyFrom(node)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        return self._grids

    def _quantize(self, node: onnx.NodeProto, index: int) -> None:
        source = self._floats.get(node.input[0], node.input[0])
        grid = self._grid(node, index)
        if grid.starts_at_zero and self._least(source) < -TOLERANCE:
            if source not in self._rectified:
                self._rectified[source] = f"{source}/rectified"
                name = f"{node.name or node.output[0]}/Relu"
                self._nodes.append(
                    helper.make_node("Relu", [source], [self._rectified[source]], name)
                )
            source = self._rectified[source]
        if self._grids.setdefault(source, grid) != grid:
            raise ModelError(f"{label(node, index)}: {source!r} is rounded to another grid as well")
        self._codes[node.output[0]] = source, grid

    def _dequantize(self, node: onnx.NodeProto, index: int) -> None:
        if node.input[0] not in self._codes:
            raise ModelError(
                f"{label(node, index)}: its input is neither constant nor made by QuantizeLinear"
            )
        source, grid = self._codes[node.input[0]]
        if self._grid(node, index) != grid:
            raise ModelError(
                f"{label(node, index)}: its scale or zero point is not that of the QuantizeLinear "
                "before it"
            )
        self._floats[node.output[0]] = source

    def _carry(self, node: onnx.NodeProto, index: int) -> None:
        """A node between a pair that only moves codes moves the floats instead."""
        if node.op_type == "Clip" and node.input[0] in self._codes:
            self._clip(node, index)
            return
        grids = [self._codes[name][1] for name in node.input if name in self._codes]
        data = node.input if node.op_type == "Concat" else node.input[:1]
        if node.op_type not in CARRIERS or not all(name in self._codes for name in data):
            raise ModelError(
                f"{label(node, index)}: it computes with integers; export the quantized model in "
                "the QDQ format, with DequantizeLinear in front of each operator"
            )
        if any(grid != grids[0] for grid in grids) or grids[0].axis is not None:
            raise ModelError(f"{label(node, index)}: its inputs have scales of their own")
        rename(node, {name: source for name, (source, _) in self._codes.items()})
        self._nodes.append(node)
        for name in node.output:
            self._codes[name] = name, grids[0]
            self._grids[name] = grids[0]

    def _clip(self, node: onnx.NodeProto, index: int) -> None:
        """Brevitas clips codes to their range, perhaps without the least one."""
        source, grid = self._codes[node.input[0]]
        bounds = [self._array(name) if name else None for name in node.input[1:]]
        low, high = [*bounds, None, None][:2]
        if low is None or high is None or not low.size or not high.size:
            raise ModelError(f"{label(node, index)}: its bounds are not constant")
        codes = int(high.flat[0]) - int(low.flat[0]) + 1
        if codes < (1 << grid.bits) - 1:
            raise ModelError(
                f"{label(node, index)}: it leaves {codes} of the {1 << grid.bits} codes of an "
                "activation, but engines saturate to all of them"
            )
        self._codes[node.output[0]] = source, grid

    def _least(self, name: str) -> float:
        """A lower bound of a value by the operators that compute it; 0 where they do not say that
        it may be negative."""
        array = self._array(name)
        if array is not None:
            return float(array.min()) if array.size else 0.0
        node = self._makers.get(name)
        if node is None:
            return 0.0
        if node.op_type == "DequantizeLinear" and node.input[0] in self._weights:
            values, _ = fold_pair(record(node, 0, set()), self._weights)
            return float(values.min()) if values.size else 0.0
        if node.op_type in UNBOUNDED:
            return -np.inf
        if node.op_type == "Add":
            return sum(self._least(operand) for operand in node.input)
        if node.op_type in (*CARRIERS, *PAIR):
            return self._least(node.input[0])
        return LEAST.get(node.op_type, 0.0)

    def _grid(self, node: onnx.NodeProto, index: int) -> Grid:
        values: dict[str, np.ndarray] = {}
        for name in filter(None, node.input[1:]):
            array = self._array(name)
            if array is None:
                raise ModelError(f"{label(node, index)}: its {name!r} is not constant")
            values[name] = array
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("block_size"):
            raise ModelError(f"{label(node, index)}: no engine scales blocks of an activation")
        return make_grid(
            [values.get(name) for name in node.input[1:]], attributes, label(node, index)
        )

    def _array(self, name: str) -> np.ndarray | None:
        while name not in self._weights:
            node = self._makers.get(name)
            if node is None or node.op_type not in ("Constant", "Identity"):
                return None
            if node.op_type == "Identity":
                name = node.input[0]
                continue
            attribute = node.attribute[0]
            value = helper.get_attribute_value(attribute)
            if attribute.name == "value":
                return as_float32(numpy_helper.to_array(value))
            return np.asarray(value)
        return self._weights[name]


def make_grid(
    operands: list[np.ndarray | None], attributes: Mapping[str, object], what: str
) -> Grid:
    """The grid of a node with the scale and perhaps a zero point as operands; what: the node."""
    scale, zero = [*operands, None][:2]
    if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
        raise ModelError(f"{what}: its scale is not positive")
    if zero is None:
        kind = attributes.get("output_dtype")
        dtype = helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) and kind else None
        zero = np.zeros(scale.shape, dtype or np.uint8)
    name = zero.dtype.name
    if name not in ("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32"):
        raise ModelError(f"{what}: its codes are of type {name}, which no engine computes with")
    if max(scale.ndim, zero.ndim) > 1 or not scale.size or zero.size not in (1, scale.size):
        raise ModelError(f"{what}: its scale and zero point do not fit each other")
    bits = int(name.lstrip("uint"))
    offset = 1 << (bits - 1) if name.startswith("u") else 0
    scale, zero = scale.astype(np.float64), zero.astype(np.int64) - offset
    if scale.size == 1:
        return Grid(scale.reshape(()), zero.reshape(()), bits)
    axis = attributes.get("axis", 1)
    return Grid(
        scale,
        np.broadcast_to(zero.reshape(-1), scale.shape),
        bits,
        axis if isinstance(axis, int) else 1,
    )


def fold_pair(node: Node, constants: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Grid | None]:
    """The result of a QuantizeLinear or DequantizeLinear of a constant, and for the latter its
    grid; None for scales of blocks and for int32, which biases are in."""
    array, *rest = (constants[name] if name else None for name in node.inputs)
    assert array is not None
    attributes = dict(node.attributes)
    scale = rest[0]
    if node.operator == "DequantizeLinear" and (len(rest) < 2 or rest[1] is None):
        rest = [scale, np.zeros((), array.dtype)]
    if attributes.get("block_size"):
        raise ModelError(f"{node}: no engine scales blocks of weights; use a scale for each row")
    grid = make_grid(rest, attributes, str(node))
    shape = [1] * array.ndim
    if grid.axis is not None:
        inside = -array.ndim <= grid.axis < array.ndim
        axis = grid.axis % array.ndim if inside else 0
        if not inside or array.shape[axis] != grid.scale.size:
            raise ModelError(f"{node}: it has not one scale for each index of axis {grid.axis}")
        shape[axis] = -1
        grid = grid.along(axis)
    factor = grid.scale.reshape(shape if grid.axis is not None else ())
    offset = grid.zero.reshape(shape if grid.axis is not None else ())
    half = 1 << (grid.bits - 1)
    if node.operator == "QuantizeLinear":
        zero = rest[1] if len(rest) > 1 else None
        dtype = np.dtype(np.uint8) if zero is None else zero.dtype
        shift = half if dtype.name.startswith("u") else 0
        codes = np.clip(np.rint(array / factor) + offset, -half, half - 1) + shift
        return np.asarray(codes, dtype), None
    codes = np.asarray(array, np.int64) - (half if array.dtype.name.startswith("u") else 0)
    values = np.asarray((codes - offset) * factor, np.float32)
    return values, grid if grid.bits < 32 else None
