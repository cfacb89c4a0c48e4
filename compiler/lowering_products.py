"""MatMul, Gemm and Conv."""

from collections.abc import Sequence

import numpy as np

from gateformer.compiler.lowering_context import Context, Result, operator
from gateformer.compiler.lowering_elementwise import affine
from gateformer.compiler.lowering_matrices import Contraction, Ids, Symbol
from gateformer.compiler.lowering_statistics import Operand


@operator("MatMul")
def _matmul(context: Context, inputs: list[Operand]) -> Result:
    left, right = inputs
    if isinstance(right, np.ndarray) and right.ndim <= 2:
        return linear(context, context.symbol(left), right, context.steps(1, right.ndim - 1))
    if isinstance(left, np.ndarray) and left.ndim == 2:
        ids = context.symbol(right)
        if ids.ndim == 2:  # left @ right = (right.T @ left.T).T
            steps = context.steps(0, 0)
            return Symbol(_swap(linear(context, _swap(ids), left.T, steps).ids))
    a, b = context.symbol(left), context.symbol(right)
    if a.ndim < 2 or b.ndim < 2:
        raise context.unsupported("no engine multiplies vectors that are not constant")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:]).reshape(-1, *a.shape[-2:])
    b = np.broadcast_to(_swap(b), batch + _swap(b).shape[-2:]).reshape(-1, *_swap(b).shape[-2:])
    return Symbol(products(context, a, b).reshape(*batch, a.shape[1], b.shape[1]))


def products(context: Context, a: Ids, b: Ids) -> Ids:
    """The products a[i] @ b[i].T of two tensors [batch, m, k] and [batch, n, k]."""
    shape = (a.shape[1], b.shape[1])
    results = [
        context.pool.add(
            context.part_name(head, len(a)), context.node, shape, Contraction(a[head], b[head])
        )
        for head in range(len(a))
    ]
    return np.stack(results)


@operator("Gemm")
def _gemm(context: Context, inputs: list[Operand]) -> Result:
    attributes = context.node.attributes
    weight = inputs[1]
    if not isinstance(weight, np.ndarray):
        raise context.unsupported("no engine takes a second operand of Gemm that is not constant")
    steps = context.steps(1, 0 if attributes.get("transB", 0) else 1)
    if attributes.get("transB", 0):
        weight = weight.T
    ids = context.symbol(inputs[0])
    if attributes.get("transA", 0):
        ids = ids.T
    alpha = attributes.get("alpha", 1.0)
    steps = None if steps is None else steps * abs(alpha)
    result = linear(context, ids, weight if alpha == 1 else weight * alpha, steps)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = context.constant(inputs[2], "a bias") * attributes.get("beta", 1.0)
        return Symbol(affine(context, result.ids, np.ones(()), bias))
    return result


@operator("Conv")
def _conv(context: Context, inputs: list[Operand]) -> Result:
    """A patch embedding: every input element goes into one patch."""
    ids = context.symbol(inputs[0])
    weight = context.constant(inputs[1], "a kernel")
    patches = ids[patch_elements(context, ids.shape, weight.shape)]
    flat = patches.reshape(-1, patches.shape[-1])
    out = linear(context, flat, weight.reshape(len(weight), -1).T, context.steps(1, 0)).ids
    if len(inputs) > 2 and inputs[2] is not None:
        out = affine(context, out, np.ones(()), context.constant(inputs[2], "a bias"))
    return Symbol(out.T.reshape(context.model.values[context.name].shape))


def patch_elements(
    context: Context, shape: Sequence[int], kernel: Sequence[int]
) -> tuple[np.ndarray, ...]:
    """Index arrays [patches, channels * kernel] into the input of a patch embedding.

    Raises UnsupportedError for every other convolution.
    """
    attributes = context.node.attributes
    window = tuple(kernel[2:])
    reasons = {
        "it has padding": any(attributes.get("pads", ()))
        or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"),
        "it has groups": attributes.get("group", 1) != 1,
        "it has dilations": any(d != 1 for d in attributes.get("dilations", ())),
        "kernel and stride differ": tuple(attributes.get("strides", [1] * len(window))) != window,
        "the batch is not 1": shape[0] != 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise context.unsupported(
                f"only patch embeddings run on the array, but {reason}; other convolutions: not yet"
            )
    counts = [size // step for size, step in zip(shape[2:], window, strict=True)]
    grids = np.indices((*counts, shape[1], *window)).reshape(
        2 * len(window) + 1, int(np.prod(counts)), -1
    )
    axes = len(window)
    spatial = [grids[i] * window[i] + grids[axes + 1 + i] for i in range(axes)]
    return (np.zeros_like(spatial[0]), grids[axes], *spatial)


def linear(
    context: Context, ids: Ids, weight: np.ndarray, steps: np.ndarray | None = None
) -> Symbol:
    """ids [..., k] times constant weight [k, n] (or [k]); steps: see Contraction."""
    columns = weight.reshape(len(weight), -1).T
    rows = ids.reshape(-1, ids.shape[-1])
    shape = (len(rows), len(columns))
    if steps is not None:
        steps = np.broadcast_to(steps, len(columns))
    definition = Contraction(rows, weight=columns, steps=steps)
    result = context.pool.add(context.name, context.node, shape, definition)
    return Symbol(result.reshape(ids.shape[:-1] + weight.shape[1:]))


def _swap(ids: Ids) -> Ids:
    return np.swapaxes(ids, -1, -2)
