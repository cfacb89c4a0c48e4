"""Executes the float Graph in numpy: the reference for calibration and for every later pass."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Operation, Role, Softmax, View
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
) -> dict[str, np.ndarray]:
    """All tensors of the graph [rows, cols] from its INPUT tensors by name; float64, but constants.

    Masks among the inputs are ignored: length says how many tokens count, None stands for all of
    them. What is computed for tokens beyond has no meaning. Elements that no operation writes are
    NaN. Raises DataError for a missing, unknown or misshapen input.
    """
    tensors: dict[str, np.ndarray] = {}
    for tensor in graph.tensors.values():
        if tensor.role == Role.INPUT:
            tensors[tensor.name] = _input(inputs, tensor.name, (tensor.rows, tensor.cols))
        elif tensor.data is not None:
            tensors[tensor.name] = tensor.data
        else:
            tensors[tensor.name] = np.full((tensor.rows, tensor.cols), np.nan)
    unknown = sorted(set(inputs) - set(tensors) - set(graph.masks))
    if unknown:
        raise DataError(f"the graph has no input tensor {unknown[0]!r}")

    def at(view: View) -> np.ndarray:
        array = tensors[view.tensor]
        return array[view.row : view.row + view.rows, view.col : view.col + view.cols]

    with np.errstate(invalid="ignore", over="ignore"):
        for op in graph.operations:
            source = op.source.tensor if isinstance(op, Softmax) else None
            cut = length if source and graph.tensors[source].col_tokens else None
            target = op.out if isinstance(op, Gemm) else op.target
            at(target)[...] = evaluate(op, at, cut, observe)
    return tensors


def evaluate(
    op: Operation,
    at: Callable[[View], np.ndarray],
    length: int | None = None,
    observe: Observer = _ignore,
) -> np.ndarray:
    """The result of one operation on the values of its views. length: how many columns a softmax
    counts, None for all."""
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
            return _softmax(at(op.source), length)
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
    out = op.factor * (a @ b.T)
    if op.bias is not None:
        out += op.bias[:, None] if op.by_row else op.bias
    return out


def _softmax(scores: np.ndarray, length: int | None) -> np.ndarray:
    """Of the first `length` columns; the others' share is 0."""
    counting = scores[:, :length]
    weights = np.exp(counting - counting.max(axis=1, keepdims=True))
    result = np.zeros_like(scores)
    result[:, :length] = weights / weights.sum(axis=1, keepdims=True)
    return result


def _norm(op: Norm, rows: np.ndarray) -> np.ndarray:
    centered = rows - rows.mean(axis=1, keepdims=True)
    variance = (centered * centered).mean(axis=1, keepdims=True)
    return centered / np.sqrt(variance + op.epsilon) * op.gain + op.bias
