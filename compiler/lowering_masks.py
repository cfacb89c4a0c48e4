"""Attention masks: what is added to scores, or selects among them, in front of a softmax."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import ImportedModel, Node
from gateformer.compiler.lowering_context import TRANSPARENT, readers
from gateformer.compiler.runtime_length import MASKED

ALWAYS = "a mask that hides tokens of every input: not yet"


@dataclass(frozen=True)
class Mask:
    """Which of a node's inputs are the scores and the mask. inverted: true hides a score, or what
    hides it is subtracted."""

    scores: int
    mask: int
    inverted: bool = False


def find_mask(
    model: ImportedModel, node: Node, computed: Sequence[bool], constants: Sequence[bool]
) -> Mask | None:
    """How a node in front of a softmax masks scores, or None when it does not.

    computed, constants: of each input, whether the accelerator computes it and whether it is
    constant. An input that is neither comes from the host.
    """
    if not feeds_softmax(model, node):
        return None
    early = [not made and not fixed for made, fixed in zip(computed, constants, strict=True)]
    if node.operator == "Add" and sorted(computed) == sorted(early) == [False, True]:
        mask = Mask(scores=computed.index(True), mask=early.index(True))
    elif node.operator == "Sub" and list(computed) == [True, False] and early[1]:
        mask = Mask(scores=0, mask=1, inverted=True)
    elif node.operator == "Where" and early[0] and sorted(computed[1:]) == [False, True]:
        scores = computed.index(True)
        hidden = model.constants.get(node.inputs[3 - scores])
        if hidden is None or not hides(hidden).all():
            return None
        mask = Mask(scores, mask=0, inverted=scores == 2)
    else:
        return None
    shape = model.values[node.inputs[mask.scores]].shape
    return mask if model.values[node.outputs[0]].shape == shape else None


def feeds_softmax(model: ImportedModel, node: Node) -> bool:
    """Whether all that reads the node's result, beyond further masks, are softmaxes of
    attention."""
    found = readers(model, node.outputs[0], TRANSPARENT | {"Add", "Sub", "Where"})
    return bool(found) and all(
        reader.operator == "Softmax" and feeds_products(model, reader) for reader in found or ()
    )


def feeds_products(model: ImportedModel, node: Node) -> bool:
    """Whether all that reads the node, beyond movement and a replacement of NaN, are products."""
    found = readers(model, node.outputs[0], TRANSPARENT | {"IsNaN", "Where"})
    return found is not None and all(reader.operator in ("Einsum", "MatMul") for reader in found)


def hides(values: np.ndarray) -> np.ndarray:
    """Where a mask, additive or boolean, keeps a score from counting."""
    return ~values if values.dtype == bool else values <= MASKED


def constant_mask(values: np.ndarray) -> str | None:
    """Why a constant that is added to scores, or selects them, cannot be one; None if it can.

    values: additive, or boolean with True where a score counts, [..., queries, keys].
    """
    hidden = hides(values)
    if not hidden.any():
        bias = values.dtype != bool and np.any(values)
        return "position biases on attention scores: not yet" if bias else None
    if hidden.ndim >= 2:
        future = np.triu(np.ones(hidden.shape[-2:], bool), 1)
        if np.array_equal(hidden, np.broadcast_to(future, hidden.shape)):
            return "causal attention: not yet"
    return ALWAYS


def refusal(model: onnx.ModelProto) -> str | None:
    """Why what a host model computes is no mask of padding; None if it can be one.

    Where no input is padding, every token must count; where all are, every token or none does.
    Exporters' masks are 1 for tokens, PyTorch's own key padding masks 0.
    """
    runner = HostRunner(model)
    masks: list[np.ndarray] = []
    for fill in (1, 0):
        inputs = {name: np.full(shape, fill) for name, shape in runner.inputs.items()}
        masks += runner.run(inputs).values()
    masks.sort(key=lambda values: np.count_nonzero(hides(values)))
    reasons = [constant_mask(values) for values in masks]
    if None not in reasons:
        return reasons[0]
    partly = any(hides(values).any() and not hides(values).all() for values in masks)
    return ALWAYS if partly else None
