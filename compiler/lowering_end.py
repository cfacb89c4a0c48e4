"""Finds out whether the host's part at the end can do with fewer tokens."""

from collections.abc import Mapping

import numpy as np

from gateformer.compiler.graph import Graph, Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.runtime_length import length_of
from gateformer.spec.errors import DataError

SEED = 0
CHANGES = (1.0, -1.0, 30.0, -30.0)
"""What is added to the last token. Up and down, so that neither maxima nor minima hide it; far
enough to pass thresholds, and not so far that an exponential leaves float32."""


def end_needs_all_tokens(graph: Graph) -> bool:
    """Whether the host's part after the accelerator mixes tokens that do not count with others, as
    a mean over all of them does that no mask weights.

    It is run on random matrices which differ in the last token alone, while that token does not
    count: outputs may differ in their elements of that token and nowhere else.
    """
    if graph.tokens is None or graph.least_tokens == graph.tokens:
        return False
    length = graph.tokens - 1
    after = HostRunner(graph.host.after)
    inputs = _shorter_inputs(graph, length) if set(after.inputs) - set(graph.tensors) else {}
    random = np.random.default_rng(SEED)
    plain = {
        tensor.name: random.uniform(0.5, 1, (tensor.rows, tensor.cols))
        for tensor in graph.tensors.values()
        if tensor.role is Role.OUTPUT
    }
    expected = after.run({**inputs, **plain})
    for change in CHANGES:
        results = after.run({**inputs, **_with_last_token(graph, plain, length, change)})
        if any(_differ_elsewhere(expected[name], results[name], graph.tokens) for name in expected):
            return True
    return False


def _with_last_token(
    graph: Graph, matrices: Mapping[str, np.ndarray], length: int, change: float
) -> dict[str, np.ndarray]:
    """Copies of matrices with something added to the last token, that of index `length`."""
    changed = {name: matrix.copy() for name, matrix in matrices.items()}
    for name, matrix in changed.items():
        tensor = graph.tensors[name]
        if tensor.row_token is not None:
            matrix[max(length - tensor.row_token, 0) :] += change
        if tensor.col_tokens:
            matrix[:, length:] += change
    return changed


def _shorter_inputs(graph: Graph, length: int) -> Mapping[str, np.ndarray]:
    """Inputs of the model by which the last token does not count. Masks are 1 for tokens, or 0."""
    before = HostRunner(graph.host.before)
    assert graph.tokens is not None
    for fill in (1, 0):
        inputs = {}
        for name, shape in before.inputs.items():
            inputs[name] = np.full(shape, fill)
            if shape and shape[-1] == graph.tokens:
                inputs[name][..., length:] = 1 - fill
        results = before.run(inputs)
        try:
            masks = {name: results[name] for name in graph.masks}
            if length_of(masks, graph.tokens, graph.least_tokens) == length or not masks:
                return inputs
        except DataError:
            continue
    return inputs


def _differ_elsewhere(one: np.ndarray, other: np.ndarray, tokens: int) -> bool:
    """Whether two outputs differ in more than the last token."""
    differ = one != other
    axes = [axis for axis, size in enumerate(differ.shape) if size == tokens]
    rest = [np.delete(differ, tokens - 1, axis).any() for axis in axes] or [differ.any()]
    return all(rest)
