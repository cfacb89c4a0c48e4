"""Finds out whether the host's part at the end can do with fewer tokens."""

from collections.abc import Mapping

import numpy as np

from gateformer.compiler.graph import Graph, Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.runtime_length import length_of
from gateformer.spec.errors import DataError

SEED = 0


def end_needs_all_tokens(graph: Graph) -> bool:
    """Whether the host's part after the accelerator mixes tokens that do not count with others, as
    a mean over all of them does that no mask weights.

    It is run twice, on random matrices which differ in the last token alone, while that token does
    not count: outputs may differ in their elements of that token and nowhere else.
    """
    if graph.tokens is None or graph.least_tokens == graph.tokens:
        return False
    length = graph.tokens - 1
    after = HostRunner(graph.host.after)
    inputs = _shorter_inputs(graph, length) if set(after.inputs) - set(graph.tensors) else {}
    random = np.random.default_rng(SEED)
    one, other = {}, {}
    for tensor in graph.tensors.values():
        if tensor.role is Role.OUTPUT:
            one[tensor.name] = random.uniform(0.5, 1, (tensor.rows, tensor.cols))
            other[tensor.name] = one[tensor.name].copy()
            if tensor.row_token is not None:
                other[tensor.name][max(length - tensor.row_token, 0) :] += 1
            if tensor.col_tokens:
                other[tensor.name][:, length:] += 1
    pairs = zip(
        after.run({**inputs, **one}).values(), after.run({**inputs, **other}).values(), strict=True
    )
    return any(_differ_elsewhere(first, second, graph.tokens) for first, second in pairs)


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
