"""Executes the integer graph: integers in, integers out, exactly what the accelerator computes."""

from collections.abc import Mapping, Sequence

import numpy as np

from gateformer.compiler.codes import TYPES
from gateformer.compiler.graph import Role, View
from gateformer.compiler.quantized import (
    QCopy,
    QGemm,
    QNorm,
    QSoftmax,
    QTensor,
    QuantizedGraph,
)
from gateformer.sim.contraction import contract
from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import DataError


def run_quantized(
    graph: QuantizedGraph,
    inputs: Mapping[str, np.ndarray],
    config: AcceleratorConfig,
    lengths: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """All tensors of the graph, [rows, cols] in their integer types, from the INPUT tensors' codes.

    lengths: how many tokens of each sample count, all if None: softmax sees that many of its scores
    where they are tokens. Rows and columns of tokens beyond are computed all the same; the
    accelerator leaves them out, and nothing of the others depends on them. A record tensor is int32
    [rows, 2]: multiplier and selector. Elements that no operation writes are 0. Raises DataError
    for a missing, unknown or misshapen input and for codes that are no integers or out of range.
    """
    tensors = {tensor.name: _start(tensor, inputs) for tensor in graph.tensors.values()}
    unknown = sorted(set(inputs) - set(tensors))
    if unknown:
        raise DataError(f"the graph has no input tensor {unknown[0]!r}")
    for op in graph.operations:
        match op:
            case QGemm():
                _gemm(graph, op, tensors, config)
            case QSoftmax():
                source = graph.tensors[op.source.tensor]
                counted = op.source.cols
                if lengths is not None and source.col_tokens:
                    counted = lengths[source.sample]
                _softmax(op, tensors, counted)
            case QNorm():
                _norm(op, tensors, config)
            case QCopy():
                _at(tensors, op.target)[...] = _at(tensors, op.source)
    return tensors


def _start(tensor: QTensor, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if tensor.kind == "record":
        return np.zeros((tensor.rows, 2), np.int32)
    shape, kind = (tensor.rows, tensor.cols), TYPES[tensor.kind]
    if tensor.codes is not None:
        return tensor.codes
    if tensor.role != Role.INPUT:
        return np.zeros(shape, kind)
    if tensor.name not in inputs:
        raise DataError(f"the input tensor {tensor.name!r} is missing")
    array = np.asarray(inputs[tensor.name])
    limits = np.iinfo(kind)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise DataError(
            f"input tensor {tensor.name!r} is {array.dtype} {array.shape}; "
            f"expected {tensor.kind} {shape}"
        )
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise DataError(f"input tensor {tensor.name!r} holds codes beyond {tensor.kind}")
    return array.astype(kind)


def _at(tensors: Mapping[str, np.ndarray], view: View) -> np.ndarray:
    array = tensors[view.tensor]
    return array[view.row : view.row + view.rows, view.col : view.col + view.cols]


def _gemm(
    graph: QuantizedGraph, op: QGemm, tensors: dict[str, np.ndarray], config: AcceleratorConfig
) -> None:
    a, b = _at(tensors, op.a), _at(tensors, op.b)
    out = _at(tensors, op.out)
    if isinstance(op.records, str):
        rows = tensors[op.records][op.a.row : op.a.row + op.a.rows]
        bias, multiplier, selector = np.zeros((1, 1), np.int64), rows[:, :1], rows[:, 1:]
    else:
        # By row: one record a row, so a column vector.
        form = (-1, 1) if op.by_row else (1, -1)
        bias = op.records.bias.astype(np.int64).reshape(form)
        multiplier = op.records.multiplier.reshape(form)
        selector = op.records.selector.reshape(form)
    total = arithmetic.wrap32(contract(a, b) + bias)
    kind = graph.tensors[op.out.tensor].kind
    if kind == "int32":
        out[...] = total
        return
    scaled = arithmetic.scale(total, multiplier, selector)
    if op.activation is not None:
        out[...] = _activate(op.activation, scaled, config)
    elif kind == "int8":
        out[...] = arithmetic.saturate(scaled, 8)
    else:
        value = arithmetic.saturate(scaled, config.residual_bits)
        if op.residual is not None:
            residual = _at(tensors, op.residual)
            value = arithmetic.residual_add(value, residual, config.residual_bits)
        out[...] = value


def _activate(parameters: np.ndarray, scaled: np.ndarray, config: AcceleratorConfig) -> np.ndarray:
    code = arithmetic.saturate(scaled, config.activation_bits)
    if config.gelu == "table":
        return parameters[arithmetic.activation_index(code, config.activation_bits)]
    bound, one, multiplier, selector, zero = parameters.view("<i4")[:5].tolist()
    return arithmetic.polynomial_gelu(code, bound, one, multiplier, selector, zero)


def _softmax(op: QSoftmax, tensors: dict[str, np.ndarray], counted: int) -> None:
    source = _at(tensors, op.source)
    bounds = op.bound + np.arange(op.source.rows) * op.causal
    numerators, totals = arithmetic.softmax_row(source, np.minimum(bounds, counted), op.table)
    _at(tensors, op.target)[...] = numerators
    records = tensors[op.records][op.target.row : op.target.row + op.target.rows]
    records[:, 0], records[:, 1] = arithmetic.reciprocal(op.numerator, totals)


def _norm(op: QNorm, tensors: dict[str, np.ndarray], config: AcceleratorConfig) -> None:
    normalized = arithmetic.normalize_row(_at(tensors, op.source), op.epsilon)
    for gain, bits in ((op.int8, 8), (op.int16, config.residual_bits)):
        if gain is not None:
            values = arithmetic.gain(normalized, gain.gains, gain.biases, gain.shift, bits)
            _at(tensors, gain.target)[...] = values
