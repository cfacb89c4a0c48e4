"""Executes the float Graph in numpy: the reference for calibration and for every later pass."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.graph import (
    Copy,
    Gemm,
    Graph,
    Norm,
    Operation,
    Role,
    Softmax,
    Tensor,
    View,
    whole,
)
from gateformer.compiler.quantized import QTensor
from gateformer.spec.errors import DataError

Stage = Literal["activation", "residual"]
Observer = Callable[[Gemm, Stage, np.ndarray], None]
"""Is shown a product just before its activation, and before its residual is added."""


def _ignore(op: Gemm, stage: Stage, values: np.ndarray) -> None:
    pass


def run_float(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    observe: Observer = _ignore,
    length: int | None = None,
    *,
    short: bool = False,
) -> dict[str, np.ndarray]:
    """All tensors of the graph [rows, cols] from its INPUT tensors by name; float64, but constants.

    Masks among the inputs are ignored: length says how many tokens count, None stands for all of
    them. The model's rows of tokens beyond are computed all the same, as padding; where `short`
    they are not, and 0. Elements that no operation writes are NaN. Raises DataError for a missing,
    unknown or misshapen input.
    """
    tensors: dict[str, np.ndarray] = {}
    for tensor in graph.tensors.values():
        if tensor.role == Role.INPUT:
            tensors[tensor.name] = _input(inputs, tensor.name, (tensor.rows, tensor.cols))
        elif tensor.data is not None:
            tensors[tensor.name] = tensor.data
        else:
            blank = np.zeros((tensor.rows, tensor.cols))
            counted(tensor, whole(tensor), blank, length if short else None)[...] = np.nan
            tensors[tensor.name] = blank
    unknown = sorted(set(inputs) - set(tensors) - set(graph.masks))
    if unknown:
        raise DataError(f"the graph has no input tensor {unknown[0]!r}")

    def at(view: View) -> np.ndarray:
        block = _block(tensors[view.tensor], view)
        return counted(graph.tensors[view.tensor], view, block, length) if short else block

    def masked(view: View) -> np.ndarray:
        """All rows of what a softmax reads or writes, but only the columns that count."""
        block = _block(tensors[view.tensor], view)
        tensor = replace(graph.tensors[view.tensor], row_token=None)
        return counted(tensor, view, block, length)

    with np.errstate(invalid="ignore", over="ignore"):
        for op in graph.operations:
            read = masked if isinstance(op, Softmax) and not short else at
            target = op.out if isinstance(op, Gemm) else op.target
            if read is masked:
                at(target)[...] = 0
            if read(target).size:
                read(target)[...] = evaluate(op, read, observe)
    return tensors


def _block(array: np.ndarray, view: View) -> np.ndarray:
    return array[view.row : view.row + view.rows, view.col : view.col + view.cols]


def counted(
    tensor: Tensor | QTensor, view: View, values: np.ndarray, length: int | None
) -> np.ndarray:
    """The values of a view that belong to tokens below the length: its first rows and columns."""
    if length is None:
        return values
    rows = values.shape[0] if tensor.row_token is None else length - tensor.row_token - view.row
    cols = length - view.col if tensor.col_tokens else values.shape[1]
    return values[: max(rows, 0), : max(cols, 0)]


def evaluate(
    op: Operation,
    at: Callable[[View], np.ndarray],
    observe: Observer = _ignore,
) -> np.ndarray:
    """The result of one operation on the values of its views."""
    match op:
        case Gemm():
            out = _gemm(op, at(op.a), at(op.b))
            if op.activation is not None:
                observe(op, "activation", out)
                out = ACTIVATIONS[op.activation](out)
            if op.residual is not None:
                observe(op, "residual", out)
                out = out + at(op.residual)
            return out
        case Softmax():
            return _softmax(at(op.source))
        case Norm():
            return _norm(op, at(op.source))
        case Copy():
            return at(op.source)


def _input(inputs: Mapping[str, np.ndarray], name: str, shape: tuple[int, int]) -> np.ndarray:
    if name not in inputs:
        raise DataError(f"the input tensor {name!r} is missing")
    array = np.asarray(inputs[name], np.float64)
    if array.shape != shape:
        raise DataError(f"input tensor {name!r} has shape {array.shape}, not {shape}")
    return array


def _gemm(op: Gemm, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # In the weights' own precision: for a short input, converting them takes longer than the rest.
    if np.float32 in (a.dtype, b.dtype):
        a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)
    out = op.factor * (a @ b.T)
    if op.bias is not None:
        out += op.bias[:, None] if op.by_row else op.bias
    return out


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _norm(op: Norm, rows: np.ndarray) -> np.ndarray:
    centered = rows - rows.mean(axis=1, keepdims=True)
    variance = (centered * centered).mean(axis=1, keepdims=True)
    return centered / np.sqrt(variance + op.epsilon) * op.gain + op.bias
