"""Model -> float Graph: which products, norms and softmaxes run, on which blocks of which
matrices."""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from gateformer.compiler.graph import Graph, Host, HostOperation, Role
from gateformer.compiler.importer import ImportedModel, Node, Value
from gateformer.compiler.lowering_context import ENGINE_OPERATORS, Context
from gateformer.compiler.lowering_elementwise import masked
from gateformer.compiler.lowering_end import end_needs_all_tokens
from gateformer.compiler.lowering_fusion import fuse
from gateformer.compiler.lowering_host import HostModel
from gateformer.compiler.lowering_layout import Layout
from gateformer.compiler.lowering_masks import Mask, find_mask, refusal
from gateformer.compiler.lowering_matrices import Ids, Input, Pool, Symbol, UnsupportedError
from gateformer.compiler.lowering_operators import apply
from gateformer.compiler.lowering_products import patch_elements
from gateformer.compiler.lowering_statistics import Operand, Statistic
from gateformer.compiler.token_axes import mark_tokens
from gateformer.spec.errors import ModelError

BEFORE = "it comes before the first product"
FOLLOWS = "it follows a node that the host runs at the end"


@dataclass(frozen=True)
class _Early:
    """A tensor that the host computes before the accelerator runs."""

    name: str


@dataclass(frozen=True)
class _Late:
    """A tensor that the host computes afterwards, because `cause` cannot run anywhere else."""

    name: str
    cause: UnsupportedError


def lower(model: ImportedModel) -> Graph:
    """The Graph of a model and the host's share of it.

    Only what the outputs depend on is computed, row by row. A node that no engine can do runs on
    the host if nothing but host nodes stand before it, or if no product follows it but those of a
    head, which have one row. Raises ModelError naming the node when neither holds, and for a model
    with attention masks that can not be run with fewer tokens.
    """
    refused: dict[str, UnsupportedError] = {}
    while True:
        try:
            graph = _Lowering(model, refused).run()
            break
        except UnsupportedError as error:
            if error.node.name in refused:
                raise
            refused[error.node.name] = error
    marked = mark_tokens(graph)
    if not end_needs_all_tokens(marked):
        return marked
    if graph.masks:
        raise ModelError(
            f"the model has the attention mask {graph.masks[0]!r}, but what the host does at the "
            "end mixes tokens that the mask hides with others: weight them by the mask, or export "
            "the model without it for a fixed length"
        )
    return graph


class _Lowering:
    """One attempt, with the nodes that turned out to be the host's in the attempts before."""

    def __init__(self, model: ImportedModel, refused: dict[str, UnsupportedError]) -> None:
        self._model = model
        self._refused = refused
        self._pool = Pool()
        self._before = HostModel(model, "before")
        self._after = HostModel(model, "after")
        self._host: list[HostOperation] = []
        self._inputs: dict[str, Ids] = {}
        self._dtypes: dict[str, np.dtype] = {}
        self._masks: dict[tuple[str, bool], str] = {}
        """The masks that the host computes: of each ONNX value, as it is or inverted, its name."""
        self._again: set[str] = set()
        """What the host computes before and needs afterwards."""
        self._late: dict[str, tuple[Ids, Node | None]] = {}
        """The tensors that the host reads afterwards."""

    def run(self) -> Graph:
        tensors: dict[str, Operand | _Early | _Late] = dict(self._model.constants)
        tensors |= {name: _Early(name) for name in self._model.inputs}
        for node in self._model.nodes:
            operands = [tensors[name] if name else None for name in node.inputs]
            results = self._node(node, operands)
            for name, result in zip(node.outputs, results, strict=False):
                if isinstance(result, Symbol):
                    self._round(name, result.ids)
            tensors.update(zip(node.outputs, results, strict=False))
        for name in self._model.outputs:
            self._output(name, tensors[name])
        blocks = [(self._block(ids), node) for ids, node in self._late.values()]
        if not blocks:
            raise ModelError("no part of the model runs on the accelerator: it holds no product")
        fuse(self._pool, [ids for ids, _ in blocks])
        reserved = {*self._model.inputs, *self._model.outputs, *self._inputs, *self._late}
        layout = Layout(self._pool, blocks, frozenset(reserved))
        return self._graph(layout, [ids for ids, _ in blocks])

    # --------------------------------------------------------------------------------- nodes

    def _node(
        self, node: Node, operands: list[Operand | _Early | _Late]
    ) -> list[Operand | _Early | _Late]:
        late = [operand for operand in operands if isinstance(operand, _Late)]
        if late:
            if node.operator in ENGINE_OPERATORS and not self._is_head(node):
                raise late[0].cause
            return self._run_late(node, operands, late[0].cause, FOLLOWS)
        computed = [operand for operand in operands if isinstance(operand, Symbol | Statistic)]
        refused = self._refused.get(node.name)
        if not computed and (node.operator not in ENGINE_OPERATORS or refused):
            return self._run_early(node, refused.reason if refused else BEFORE)
        if refused:
            return self._run_late(node, operands, refused, refused.reason)
        context = Context(self._model, self._pool, node)
        mask = find_mask(
            self._model,
            node,
            [isinstance(operand, Symbol) for operand in operands],
            [isinstance(operand, np.ndarray) for operand in operands],
        )
        if mask is not None:
            return [self._mask(context, mask, operands[mask.scores])]
        if node.operator == "Conv" and isinstance(operands[0], _Early):
            operands[0] = self._patches(context, operands[0])
        ready: list[Operand] = [
            Symbol(self._enter(operand)) if isinstance(operand, _Early) else operand
            for operand in operands
            if not isinstance(operand, _Late)
        ]
        return list(apply(context, ready))

    def _is_head(self, node: Node) -> bool:
        """Whether a node takes one row and constant weights: the host may run it at the end."""
        shape = self._model.values[node.outputs[0]].shape
        weighted = any(name in self._model.constants for name in node.inputs)
        return weighted and node.operator != "Conv" and np.prod(shape[:-1]) == 1

    def _run_early(self, node: Node, reason: str) -> list[Operand | _Early | _Late]:
        self._before.original(node.proto)
        self._host.append(HostOperation(node.name, node.operator, reason))
        return [_Early(name) for name in node.outputs]

    def _run_late(
        self,
        node: Node,
        operands: list[Operand | _Early | _Late],
        cause: UnsupportedError,
        reason: str,
    ) -> list[Operand | _Early | _Late]:
        for name, operand in zip(node.inputs, operands, strict=True):
            if isinstance(operand, Symbol):
                self._late[name] = (operand.ids, node)
            elif isinstance(operand, Statistic):
                raise UnsupportedError(operand.node, "no engine has this operator here")
            elif isinstance(operand, _Early):
                self._again.add(name)
        self._after.original(node.proto)
        self._host.append(HostOperation(node.name, node.operator, reason))
        return [_Late(name, cause) for name in node.outputs]

    def _mask(self, context: Context, mask: Mask, scores: Operand | _Early | _Late) -> Symbol:
        """The scores behind a mask that the host computes."""
        assert isinstance(scores, Symbol)
        name = context.node.inputs[mask.mask]
        if self._model.values[name].shape[-1:] != scores.ids.shape[-1:]:
            raise context.unsupported("a mask that is the same for all keys of a query: not yet")
        if (name, mask.inverted) not in self._masks:
            self._add_mask(context.node, name, mask)
        return Symbol(masked(context, scores.ids))

    def _add_mask(self, node: Node, name: str, mask: Mask) -> None:
        """Lets the host compute a mask."""
        value, target = self._model.values[name], name
        if mask.inverted or name in self._model.inputs:
            target = f"{name}/mask"
            inverse = "Not" if value.dtype == bool else "Neg"
            self._before.node(inverse if mask.inverted else "Identity", [name], target)
        self._masks[name, mask.inverted] = target
        probe = HostModel(self._model, "mask")
        probe.repeat(self._before, [target])
        probe.output(target, value.shape, value.dtype)
        reason = refusal(probe.build())
        if reason is not None:
            raise UnsupportedError(node, reason)
        self._before.output(target, value.shape, value.dtype)

    def _round(self, name: str, ids: Ids) -> None:
        """Notes the grid of a tensor of a quantization-aware file."""
        grid = self._model.quantization.get(name)
        if grid is not None:
            self._pool.round(ids, grid)

    def _enter(self, operand: _Early) -> Ids:
        """The elements of a host tensor as a matrix that the accelerator reads."""
        value = self._model.values[operand.name]
        ids = self._enter_as(operand.name, value)
        self._round(operand.name, ids)
        return ids

    def _enter_as(self, name: str, value: Value) -> Ids:
        if name not in self._inputs:
            shape = value.shape
            self._dtypes[name] = value.dtype
            cols = shape[-1] if shape else 1
            rows = int(np.prod(shape)) // cols
            ids = self._pool.add(name, None, (rows, cols), Input(name))
            self._inputs[name] = ids.reshape(shape)
        return self._inputs[name]

    def _patches(self, context: Context, image: _Early) -> Symbol:
        """The input of a patch embedding, cut into patches by the host; numbered as an image."""
        node, model = context.node, self._model
        value = model.values[image.name]
        shape = value.shape
        weight = context.constant(model.constants.get(node.inputs[1]), "a kernel")
        places = patch_elements(context, shape, weight.shape)
        window = weight.shape[2:]
        counts = [size // step for size, step in zip(shape[2:], window, strict=True)]
        if any(size % step for size, step in zip(shape[2:], window, strict=True)):
            raise context.unsupported("only patch embeddings run, but the patches overhang")
        split = [shape[1], *(n for pair in zip(counts, window, strict=True) for n in pair)]
        axes = len(window)
        order = [*range(1, 2 * axes, 2), 0, *range(2, 2 * axes + 1, 2)]
        parts, moved, patches = (f"{node.name}/{step}" for step in ("split", "moved", "patches"))
        before = self._before
        before.node("Reshape", [image.name, before.constant(np.array(split))], parts)
        before.node("Transpose", [parts], moved, perm=order)
        rows = places[0].shape
        before.node("Reshape", [moved, before.constant(np.array(rows))], patches)
        reason = "the host cuts the input into patches; their product runs on the array"
        self._host.append(HostOperation(node.name, node.operator, reason))
        ids = np.empty(shape, np.int64)
        ids[places] = self._enter_as(patches, Value(rows, value.dtype))
        self._round(image.name, ids)
        return Symbol(ids)

    # --------------------------------------------------------------------------------- outputs

    def _output(self, name: str, operand: Operand | _Early | _Late) -> None:
        value = self._model.values.get(name)
        if isinstance(operand, np.ndarray):
            value = Value(operand.shape, operand.dtype)
            self._after.node("Identity", [self._after.constant(operand)], name)
        elif isinstance(operand, Symbol):
            self._late[name] = (operand.ids, None)
        elif isinstance(operand, _Early):
            raise ModelError(f"output {name!r} does not depend on any product")
        elif isinstance(operand, Statistic):
            raise UnsupportedError(operand.node, "no engine has this operator here")
        assert value is not None
        self._after.output(name, value.shape, value.dtype)

    def _block(self, ids: Ids) -> Ids:
        """A matrix block with all elements of a tensor that the host reads."""
        matrix = self._pool.sole(ids)
        if matrix is None:
            return ids.reshape(-1, ids.shape[-1])
        seen = np.zeros(matrix.rows * matrix.cols, bool)
        seen[(ids - matrix.base).ravel()] = True
        rows = np.flatnonzero(seen.reshape(matrix.rows, -1).any(1))
        return matrix.ids[rows[0] : rows[-1] + 1]

    def _graph(self, layout: Layout, blocks: list[Ids]) -> Graph:
        for name in self._model.inputs:
            value = self._model.values[name]
            self._before.input(name, value.shape, value.dtype)
        for target, source, elements in layout.inputs:
            size, dtype = self._inputs[source].size, self._dtypes[source]
            elem = None if dtype == np.float32 else TensorProto.FLOAT
            self._before.rearrange(source, elements, target, size=size, elem=elem)
            self._before.output(target, elements.shape, np.float32)
        for (name, (ids, _)), block, view in zip(
            self._late.items(), blocks, layout.outputs, strict=True
        ):
            tensor = layout.tensors[view.tensor]
            place = (view.row + np.arange(view.rows))[:, None] * tensor.cols
            place = (place + view.col + np.arange(view.cols)).ravel()
            order = np.argsort(block, axis=None)
            found = order[np.searchsorted(block.ravel(), ids.ravel(), sorter=order)]
            elements = place[found].reshape(ids.shape)
            dtype = self._model.values[name].dtype
            elem = None if dtype == np.float32 else helper.np_dtype_to_tensor_dtype(dtype)
            size = tensor.rows * tensor.cols
            self._after.rearrange(tensor.name, elements, name, size=size, elem=elem, first=True)
        self._after.repeat(self._before, self._again)
        for tensor in layout.tensors.values():
            if tensor.role == Role.OUTPUT:
                self._after.input(tensor.name, (tensor.rows, tensor.cols), np.float32)
        host = Host(self._before.build(), self._after.build(), tuple(self._host))
        masks = tuple(self._masks.values())
        return Graph(layout.tensors, tuple(layout.operations), host, masks)
