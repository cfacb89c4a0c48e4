"""Finds which rows and columns of a graph are tokens, which a runtime length may cut.

Every softmax runs over tokens. From there the axis is followed through all operations: the rows of
a product are those of its left operand, its columns are the rows of its right one, norms, copies
and residuals keep rows and columns. Cutting tokens leaves the others as they are, as long as no
operation but the product behind a softmax sums over them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Operation, Role, Softmax, View
from gateformer.spec.errors import ModelError

Axis = tuple[str, Literal["rows", "cols"]]
Link = tuple[Axis, int, Axis, int, int]
"""Two axes, an index of each, and a count: so many entries from there on stand for the same
tokens."""


def mark_tokens(graph: Graph) -> Graph:
    """The graph with its tokens marked, where a runtime length can cut it; else as it was.

    Raises ModelError when the model has attention masks but can not be cut, or when they are not on
    every softmax: a length would hide tokens from all.
    """
    bare = [op for op in graph.operations if isinstance(op, Softmax) and not op.masked]
    if graph.masks and bare:
        node = bare[0].nodes[0] if bare[0].nodes else bare[0].name
        raise ModelError(
            f"the softmax {node!r} has no attention mask while others have: not yet; mask all of "
            "them, or export the model without masks for a fixed length"
        )
    counts = {op.source.cols for op in graph.operations if isinstance(op, Softmax)}
    reason = "its softmaxes differ in length"
    if not counts:
        reason = "it has no softmax"
    elif len(counts) == 1:
        (tokens,) = counts
        first = _first_tokens(graph, tokens)
        conflict = _conflict(graph, first, tokens)
        if conflict is None:
            return _marked(graph, first, tokens)
        reason = conflict
    if graph.masks:
        raise ModelError(
            f"the model has the attention mask {graph.masks[0]!r}, but shorter inputs cannot be "
            f"run: {reason}; export it without the mask for a fixed length"
        )
    return graph


def _first_tokens(graph: Graph, tokens: int) -> dict[Axis, int | None]:
    """The token at index 0 of every axis of tokens; None where two do not agree.

    What ends before the last token, such as the class token's row, is always there: it is followed
    no further, since nothing cuts it.
    """
    links: dict[Axis, list[tuple[Axis, int, int]]] = {}
    for one, i, other, j, count in (link for op in graph.operations for link in _links(op)):
        links.setdefault(one, []).append((other, i - j, tokens - i - count))
        links.setdefault(other, []).append((one, j - i, tokens - j - count))
    first: dict[Axis, int | None] = {}
    for op in graph.operations:
        if isinstance(op, Softmax):
            axis: Axis = (op.source.tensor, "cols")
            _spread(links, first, axis, -op.source.col)
    return first


def _spread(
    links: dict[Axis, list[tuple[Axis, int, int]]],
    first: dict[Axis, int | None],
    axis: Axis,
    token: int,
) -> None:
    """Follows links from an axis whose index 0 is `token`; links carry the shift to the other axis
    and the least token at index 0 with which they reach the last one."""
    waiting = [(axis, token)]
    while waiting:
        axis, token = waiting.pop()
        if axis in first:
            if first[axis] != token:
                first[axis] = None
            continue
        first[axis] = token
        waiting += [
            (other, token + shift) for other, shift, least in links.get(axis, []) if token >= least
        ]


def _links(op: Operation) -> Iterator[Link]:
    match op:
        case Gemm():
            yield _link(op.out, "rows", op.a, "rows")
            yield _link(op.out, "cols", op.b, "rows")
            yield _link(op.a, "cols", op.b, "cols")
            if op.residual is not None:
                yield _link(op.out, "rows", op.residual, "rows")
                yield _link(op.out, "cols", op.residual, "cols")
        case Softmax() | Norm() | Copy():
            yield _link(op.source, "rows", op.target, "rows")
            yield _link(op.source, "cols", op.target, "cols")


def _link(
    one: View, axis: Literal["rows", "cols"], other: View, other_axis: Literal["rows", "cols"]
) -> Link:
    i, j = (
        view.row if side == "rows" else view.col
        for view, side in ((one, axis), (other, other_axis))
    )
    count = one.rows if axis == "rows" else one.cols
    return (one.tensor, axis), i, (other.tensor, other_axis), j, count


def _conflict(graph: Graph, first: dict[Axis, int | None], tokens: int) -> str | None:
    """Why tokens cannot be cut, if they cannot."""
    softmaxes = {op.target.tensor for op in graph.operations if isinstance(op, Softmax)}
    for (name, axis), token in first.items():
        tensor = graph.tensors[name]
        if token is None or token < 0:
            return f"{name!r} holds tokens in two different orders"
        if axis == "cols" and (token or tensor.segment != tensor.cols):
            return f"{name!r} holds only some tokens in its columns"
        if token + (tensor.rows if axis == "rows" else tensor.cols) > tokens:
            return f"{name!r} holds more tokens than a softmax has columns"
    for op in graph.operations:
        match op:
            case Gemm() if (op.a.tensor, "cols") in first and op.a.tensor not in softmaxes:
                return f"operation {op.name!r} sums over all tokens"
            case Norm() if (op.source.tensor, "cols") in first:
                return f"operation {op.name!r} normalizes over tokens"
            case Gemm() if (
                op.bias is not None
                and (
                    op.out.tensor,
                    "rows" if op.by_row else "cols",
                )
                in first
            ):
                return f"operation {op.name!r} has a bias for every token"
            case Gemm():
                for view in (op.a, op.b):
                    constant = graph.tensors[view.tensor].role == Role.CONSTANT
                    if constant and (view.tensor, "rows") in first:
                        return f"operation {op.name!r} has weights for every token"
    return None


def _marked(graph: Graph, first: dict[Axis, int | None], tokens: int) -> Graph:
    tensors = {
        name: replace(
            tensor, row_token=first.get((name, "rows")), col_tokens=(name, "cols") in first
        )
        for name, tensor in graph.tensors.items()
    }
    least = 1
    for op in graph.operations:
        for view in _views(op):
            start = tensors[view.tensor].row_token
            if start is not None and start + view.row + view.rows < tokens:
                # Some rows alone, such as the class token's: they must always be there.
                least = max(least, start + view.row + view.rows)
    return replace(graph, tensors=tensors, tokens=tokens, least_tokens=least)


def _views(op: Operation) -> tuple[View, ...]:
    if isinstance(op, Gemm):
        return (op.a, op.b, op.out) + (() if op.residual is None else (op.residual,))
    return (op.source, op.target)
