"""One small handler for each ONNX operator: element arrays in, element arrays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gateformer.compiler import importer
from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.importer import ImportedModel, Node
from gateformer.compiler.lowering_matrices import (
    Affine,
    Constant,
    Contraction,
    Elementwise,
    Ids,
    Matrix,
    Normalization,
    Pool,
    Pooled,
    SoftmaxRows,
    Sum,
    UnsupportedError,
)
from gateformer.compiler.lowering_statistics import Statistic, combine


@dataclass(frozen=True)
class Symbol:
    """A tensor that the accelerator computes: the numbers of its elements, in its shape."""

    ids: Ids


Operand = Symbol | Statistic | np.ndarray | None
"""What a handler gets: a computed tensor, a row statistic, a constant, or an absent input."""
Result = Symbol | Statistic


@dataclass(frozen=True)
class Context:
    model: ImportedModel
    pool: Pool
    node: Node

    def unsupported(self, reason: str) -> UnsupportedError:
        return UnsupportedError(self.node, reason)

    def constant(self, operand: Operand, what: str) -> np.ndarray:
        if not isinstance(operand, np.ndarray):
            raise self.unsupported(f"no engine takes {what} that is not constant")
        return operand.astype(np.float64)

    @property
    def name(self) -> str:
        return self.node.outputs[0]


Handler = Callable[[Context, list[Operand]], Result]
HANDLERS: dict[str, Handler] = {}
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
"""Operators that make the accelerator start, and that never run on the host after it."""
ENGINE_OPERATORS = PRODUCTS | {"LayerNormalization"}
MOVEMENT = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that only move elements."""
UNARY = frozenset(
    {
        "Abs",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
"""Functions of one element (further inputs constant), as far as the opset has them."""
GELU_FORMS = {b"none": "gelu", b"tanh": "gelu_tanh"}
"""Values of Gelu's attribute `approximate`; the reference implementation lacks the operator."""


def operator(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


def apply(context: Context, inputs: list[Operand]) -> list[Result]:
    """The node's outputs. Raises UnsupportedError when no engine can do it."""
    node = context.node
    if node.operator in MOVEMENT:
        return _move(context, inputs)
    if node.operator in UNARY:
        return [_unary(context, inputs)]
    handler = HANDLERS.get(node.operator)
    if handler is None:
        raise context.unsupported("no engine has this operator")
    if any(name for name in node.outputs[1:]) and node.operator != "Dropout":
        raise context.unsupported("no engine computes its further outputs")
    return [handler(context, inputs)]


def _symbol(context: Context, operand: Operand) -> Ids:
    if isinstance(operand, Symbol):
        return operand.ids
    if isinstance(operand, np.ndarray):
        return context.pool.constant(f"{context.name}/constant", operand)
    if isinstance(operand, Statistic):
        raise UnsupportedError(operand.node, "no engine has this operator outside LayerNorm")
    raise context.unsupported("an input is missing")


# ---------------------------------------------------------------------------------- movement


def _move(context: Context, inputs: list[Operand]) -> list[Result]:
    """Applies the operator to the numbers of the elements."""
    node = context.node
    data = len(inputs) if node.operator == "Concat" else 1
    arrays = [
        _symbol(context, operand) if index < data else operand
        for index, operand in enumerate(inputs)
    ]
    if not all(array is None or isinstance(array, np.ndarray) for array in arrays[data:]):
        raise context.unsupported("where it moves data is known only at run time")
    feeds = {name: array for name, array in zip(node.inputs, arrays, strict=True) if name}
    return [Symbol(ids) for ids in importer.evaluate(node, feeds, context.model.opset)]


@operator("Identity", "Dropout")
def _identity(context: Context, inputs: list[Operand]) -> Result:
    if context.node.operator == "Dropout" and len(inputs) > 2 and np.any(inputs[2]):
        raise context.unsupported("it is in training mode; export the model for inference")
    return Symbol(_symbol(context, inputs[0]))


@operator("Cast")
def _cast(context: Context, inputs: list[Operand]) -> Result:
    values = context.model.values
    kinds = {values[context.node.inputs[0]].dtype.kind, values[context.node.outputs[0]].dtype.kind}
    if kinds != {"f"}:
        raise context.unsupported("no engine converts between floats and integers")
    if isinstance(inputs[0], Statistic):
        return inputs[0]
    return Symbol(_symbol(context, inputs[0]))


# ---------------------------------------------------------------------------------- products


@operator("MatMul")
def _matmul(context: Context, inputs: list[Operand]) -> Result:
    left, right = inputs
    if isinstance(right, np.ndarray) and right.ndim <= 2:
        return _linear(context, _symbol(context, left), right)
    if isinstance(left, np.ndarray) and left.ndim == 2:
        ids = _symbol(context, right)
        if ids.ndim == 2:  # left @ right = (right.T @ left.T).T
            return Symbol(_swap(_linear(context, _swap(ids), left.T).ids))
    a, b = _symbol(context, left), _symbol(context, right)
    if a.ndim < 2 or b.ndim < 2:
        raise context.unsupported("no engine multiplies vectors that are not constant")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:]).reshape(-1, *a.shape[-2:])
    b = np.broadcast_to(_swap(b), batch + _swap(b).shape[-2:]).reshape(-1, *_swap(b).shape[-2:])
    shape = (a.shape[1], b.shape[1])
    results = [
        context.pool.add(
            _head(context, head, len(a)), context.node, shape, Contraction(a[head], b[head])
        )
        for head in range(len(a))
    ]
    return Symbol(np.stack(results).reshape(batch + shape))


@operator("Gemm")
def _gemm(context: Context, inputs: list[Operand]) -> Result:
    attributes = context.node.attributes
    a = inputs[0]
    weight = context.constant(inputs[1], "a second operand of Gemm")
    if attributes.get("transB", 0):
        weight = weight.T
    ids = _symbol(context, a)
    if attributes.get("transA", 0):
        ids = ids.T
    result = _linear(context, ids, weight * attributes.get("alpha", 1.0))
    if len(inputs) > 2 and inputs[2] is not None:
        bias = context.constant(inputs[2], "a bias") * attributes.get("beta", 1.0)
        return Symbol(_affine(context, result.ids, np.ones(()), bias))
    return result


@operator("Conv")
def _conv(context: Context, inputs: list[Operand]) -> Result:
    """A patch embedding: every input element goes into one patch."""
    ids = _symbol(context, inputs[0])
    weight = context.constant(inputs[1], "a kernel")
    patches = ids[patch_elements(context, ids.shape, weight.shape)]
    flat = _linear(context, patches.reshape(-1, patches.shape[-1]), weight.reshape(len(weight), -1).T)
    out = flat.ids
    if len(inputs) > 2 and inputs[2] is not None:
        out = _affine(context, out, np.ones(()), context.constant(inputs[2], "a bias"))
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
        "kernel and stride differ": tuple(attributes.get("strides", [1] * len(window))) != window,
        "it has padding": any(attributes.get("pads", ()))
        or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"),
        "it has groups": attributes.get("group", 1) != 1,
        "it has dilations": any(d != 1 for d in attributes.get("dilations", ())),
        "the batch is not 1": shape[0] != 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise context.unsupported(f"only patch embeddings run on the array, but {reason}")
    counts = [size // step for size, step in zip(shape[2:], window, strict=True)]
    grids = np.indices((*counts, shape[1], *window)).reshape(
        2 * len(window) + 1, int(np.prod(counts)), -1
    )
    axes = len(window)
    spatial = [grids[i] * window[i] + grids[axes + 1 + i] for i in range(axes)]
    return (np.zeros_like(spatial[0]), grids[axes], *spatial)


def _linear(context: Context, ids: Ids, weight: np.ndarray) -> Symbol:
    """ids [..., k] times constant weight [k, n] (or [k])."""
    weight = weight.astype(np.float64)
    columns = weight.reshape(len(weight), -1).T
    rows = ids.reshape(-1, ids.shape[-1])
    result = context.pool.add(
        context.name,
        context.node,
        (len(rows), len(columns)),
        Contraction(rows, weight=np.ascontiguousarray(columns)),
    )
    return Symbol(result.reshape(ids.shape[:-1] + weight.shape[1:]))


def _swap(ids: Ids) -> Ids:
    return np.swapaxes(ids, -1, -2)


def _head(context: Context, head: int, heads: int) -> str:
    return context.name if heads == 1 else f"{context.name}/{head}"


# ---------------------------------------------------------------------------- rows at a time


@operator("Softmax")
def _softmax(context: Context, inputs: list[Operand]) -> Result:
    ids = _symbol(context, inputs[0])
    if context.node.attributes.get("axis", -1) not in (-1, ids.ndim - 1):
        raise context.unsupported("softmax runs over the last axis only")
    if not _feeds_products(context):
        raise context.unsupported("softmax runs on the accelerator only in front of a product")
    blocks = ids.reshape(-1, *ids.shape[-2:])
    results = [
        context.pool.add(
            _head(context, head, len(blocks)), context.node, block.shape, SoftmaxRows(block)
        )
        for head, block in enumerate(blocks)
    ]
    return Symbol(np.stack(results).reshape(ids.shape))


def _feeds_products(context: Context) -> bool:
    """Whether all that reads the node, beyond mere movement, are products of two tensors."""
    model = context.model
    names = {context.name}
    if names & set(model.outputs):
        return False
    for node in model.nodes:
        if not names & set(node.inputs):
            continue
        if node.operator in MOVEMENT | {"Identity", "Dropout", "Cast"}:
            names |= set(node.outputs)
            if names & set(model.outputs):
                return False
        elif node.operator != "MatMul":
            return False
    return True


@operator("LayerNormalization")
def _layer_norm(context: Context, inputs: list[Operand]) -> Result:
    ids = _symbol(context, inputs[0])
    axis = context.node.attributes.get("axis", -1)
    if axis not in (-1, ids.ndim - 1):
        raise context.unsupported("the norm runs over the last axis only")
    width = ids.shape[-1]
    gain = np.broadcast_to(context.constant(inputs[1], "a gain"), width)
    bias = np.zeros(width)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = np.broadcast_to(context.constant(inputs[2], "a bias"), width)
    epsilon = float(context.node.attributes.get("epsilon", 1e-5))
    return Symbol(_normalize(context, ids, gain, bias, epsilon))


def _normalize(
    context: Context, ids: Ids, gain: np.ndarray, bias: np.ndarray, epsilon: float
) -> Ids:
    rows = ids.reshape(-1, ids.shape[-1])
    definition = Normalization(rows, gain, bias, epsilon)
    return context.pool.add(context.name, context.node, rows.shape, definition).reshape(ids.shape)


@operator("ReduceMean", "Sqrt", "Reciprocal", "Pow")
def _statistic(context: Context, inputs: list[Operand]) -> Result:
    """A step of a LayerNorm that was exported in parts, or a power of a single element."""
    first = inputs[0]
    known: Statistic | Ids = first if isinstance(first, Statistic) else _symbol(context, first)
    constant = inputs[1] if len(inputs) > 1 and isinstance(inputs[1], np.ndarray) else None
    if constant is not None and context.node.operator == "Pow":
        constant = constant.astype(np.float64)
    step = combine(context.node, known, constant)
    if step is not None:
        return step
    if context.node.operator == "ReduceMean" and not isinstance(known, Statistic):
        return _pool(context, known, constant)
    return _unary(context, inputs)


def _pool(context: Context, ids: Ids, axes_input: np.ndarray | None) -> Symbol:
    """The mean over all axes but the last and those of size 1."""
    axes = context.node.attributes.get("axes", axes_input)
    reduced = range(ids.ndim) if axes is None else [int(axis) % ids.ndim for axis in axes]
    kept = [axis for axis in range(ids.ndim) if ids.shape[axis] > 1 and axis not in reduced]
    if kept != [ids.ndim - 1]:
        raise context.unsupported("no engine takes means but those of LayerNorm and over all tokens")
    rows = ids.reshape(-1, ids.shape[-1])
    pooled = context.pool.add(context.name, context.node, (1, rows.shape[1]), Pooled(rows))
    return Symbol(pooled.reshape(context.model.values[context.name].shape))


# ----------------------------------------------------------------------------- element by element


def _unary(context: Context, inputs: list[Operand]) -> Result:
    ids = _symbol(context, inputs[0])
    node, opset = context.node, context.model.opset
    rest = {
        name: context.constant(operand, "a parameter")
        for name, operand in zip(node.inputs[1:], inputs[1:], strict=True)
        if name
    }

    def function(values: np.ndarray) -> np.ndarray:
        if node.operator == "Gelu":
            return ACTIVATIONS[GELU_FORMS[node.attributes.get("approximate", b"none")]](values)
        return importer.evaluate(node, {node.inputs[0]: values, **rest}, opset)[0]

    return Symbol(_elementwise(context, *_trace(context, ids), function))


@operator("Add", "Sub", "Mul", "Div")
def _binary(context: Context, inputs: list[Operand]) -> Result:
    left, right = inputs
    if isinstance(left, Statistic) or isinstance(right, Statistic):
        return _with_statistic(context, left, right)
    if isinstance(right, np.ndarray):
        return Symbol(_with_constant(context, _symbol(context, left), right.astype(np.float64)))
    if isinstance(left, np.ndarray):
        return Symbol(_constant_first(context, left.astype(np.float64), _symbol(context, right)))
    return _of_two(context, _symbol(context, left), _symbol(context, right))


def _with_statistic(context: Context, left: Operand, right: Operand) -> Result:
    def plain(operand: Operand) -> Statistic | Ids | np.ndarray | None:
        return operand.ids if isinstance(operand, Symbol) else operand

    step = combine(context.node, plain(left), plain(right))
    if step is None:
        statistic = left if isinstance(left, Statistic) else right
        assert isinstance(statistic, Statistic)
        raise UnsupportedError(statistic.node, "no engine has this operator outside LayerNorm")
    if step.kind == "normalized":
        width = step.ids.shape[-1]
        ids = _normalize(context, step.ids, np.ones(width), np.zeros(width), step.epsilon)
        return Symbol(ids)
    return step


def _with_constant(context: Context, ids: Ids, array: np.ndarray) -> Ids:
    one, zero = np.ones(()), np.zeros(())
    match context.node.operator:
        case "Add":
            return _affine(context, ids, one, array)
        case "Sub":
            return _affine(context, ids, one, -array)
        case "Mul":
            return _affine(context, ids, array, zero)
    if not np.all(array):
        raise context.unsupported("it divides by zero")
    return _affine(context, ids, 1 / array, zero)


def _constant_first(context: Context, array: np.ndarray, ids: Ids) -> Ids:
    match context.node.operator:
        case "Add":
            return _affine(context, ids, np.ones(()), array)
        case "Sub":
            return _affine(context, ids, -np.ones(()), array)
        case "Mul":
            return _affine(context, ids, array, np.zeros(()))
    if array.size != 1:
        raise context.unsupported("no engine divides a tensor by another")
    numerator = float(array.reshape(()))
    return _elementwise(context, *_trace(context, ids), lambda x: numerator / x)


def _of_two(context: Context, left: Ids, right: Ids) -> Symbol:
    left, right = np.broadcast_arrays(left, right)
    root, f = _trace(context, left)
    other, g = _trace(context, right)
    kind = context.node.operator
    if np.array_equal(root, other) and (f, g) != (None, None):
        one, two = f or _same, g or _same
        functions = {
            "Add": lambda x: one(x) + two(x),
            "Sub": lambda x: one(x) - two(x),
            "Mul": lambda x: one(x) * two(x),
            "Div": lambda x: one(x) / two(x),
        }
        return Symbol(_elementwise(context, root, None, functions[kind]))
    if kind == "Sub":
        right = _affine(context, right, -np.ones(()), np.zeros(()))
    elif kind != "Add":
        raise context.unsupported("no engine multiplies or divides two tensors element by element")
    return Symbol(_sum(context, left, right))


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _blocks(context: Context, ids: Ids) -> list[tuple[Matrix, np.ndarray, Ids, Ids]]:
    """Splits elements by matrix: the matrix, which positions of ids belong to it (boolean), its
    rows and its columns that occur. Every one of those rows and columns must occur in full."""
    blocks = []
    sources = context.pool.sources(ids)
    for matrix in sources:
        local = ids - matrix.base
        size = matrix.rows * matrix.cols
        inside = np.ones(ids.shape, bool) if len(sources) == 1 else (0 <= local) & (local < size)
        seen = np.zeros(size, bool)
        seen[local[inside]] = True
        grid = seen.reshape(matrix.rows, matrix.cols)
        rows, cols = np.flatnonzero(grid.any(1)), np.flatnonzero(grid.any(0))
        if not grid[np.ix_(rows, cols)].all():
            raise context.unsupported("it treats the elements of a matrix differently")
        blocks.append((matrix, inside, rows, cols))
    return blocks


def _positions(matrix: Matrix, rows: np.ndarray, cols: np.ndarray, ids: Ids) -> np.ndarray:
    """Where elements of the matrix stand in the block of the given rows and columns, flat."""
    place = np.zeros((matrix.rows, matrix.cols), np.int64)
    place[np.ix_(rows, cols)] = np.arange(len(rows) * len(cols)).reshape(len(rows), -1)
    return place.ravel()[ids - matrix.base]


def _affine(context: Context, ids: Ids, scale: np.ndarray, offset: np.ndarray) -> Ids:
    """ids * scale + offset as new matrices, each in the layout of the matrix it comes from."""
    shape = np.broadcast_shapes(ids.shape, scale.shape, offset.shape)
    if np.all(scale == 1) and np.all(offset == 0):
        return np.broadcast_to(ids, shape)
    ids = np.broadcast_to(ids, shape)
    sole = context.pool.sole(ids)
    if sole and isinstance(sole.definition, Elementwise) and scale.size == offset.size == 1:
        line = _line(float(scale.reshape(())), float(offset.reshape(())))
        return _elementwise(context, *_trace(context, ids), line)
    result = np.empty(shape, np.int64)
    blocks = _blocks(context, ids)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        name = _head(context, index, len(blocks))
        positions = _positions(matrix, rows, cols, ids[inside])
        block_shape = (len(rows), len(cols))
        factors = _scatter(context, positions, np.broadcast_to(scale, shape)[inside], block_shape)
        offsets = _scatter(context, positions, np.broadcast_to(offset, shape)[inside], block_shape)
        block = matrix.ids[np.ix_(rows, cols)]
        if isinstance(matrix.definition, Constant):
            data = matrix.definition.data[np.ix_(rows, cols)] * factors + offsets
            new = context.pool.constant(name, data)
        else:
            definition = Affine(block, _squeeze(factors), _squeeze(offsets))
            new = context.pool.add(name, context.node, block_shape, definition)
        result[inside] = new.ravel()[positions]
    return result


def _scatter(
    context: Context, positions: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    flat = np.empty(shape[0] * shape[1])
    flat[positions] = values
    if not np.array_equal(flat[positions], values):
        raise context.unsupported("it makes different tensors of the same elements")
    return flat.reshape(shape)


def _squeeze(array: np.ndarray) -> np.ndarray:
    """The array as a scalar, as one row, or as it is: the smallest that broadcasts to the same."""
    if np.all(array == array.flat[0]):
        return array[0, 0]
    return array[:1] if np.all(array == array[:1]) else array


def _trace(context: Context, ids: Ids) -> tuple[Ids, Callable[[np.ndarray], np.ndarray] | None]:
    """The elements that `ids` are a function of, element by element, and that function."""
    function = None
    while (matrix := context.pool.sole(ids)) is not None:
        match matrix.definition:
            case Affine(source, scale, offset) if scale.ndim == 0 and offset.ndim == 0:
                function = _compose(function, _line(float(scale), float(offset)))
            case Elementwise(source, inner):
                function = _compose(function, inner)
            case _:
                break
        ids = source.ravel()[ids - matrix.base]
    return ids, function


def _line(scale: float, offset: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x * scale + offset


def _compose(
    outer: Callable[[np.ndarray], np.ndarray] | None, inner: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    return inner if outer is None else lambda x: outer(inner(x))


def _elementwise(
    context: Context,
    ids: Ids,
    inner: Callable[[np.ndarray], np.ndarray] | None,
    outer: Callable[[np.ndarray], np.ndarray],
) -> Ids:
    """outer(inner(ids)) as new matrices, each in the layout of the matrix it comes from."""
    function = outer if inner is None else _compose(outer, inner)
    result = np.empty(ids.shape, np.int64)
    blocks = _blocks(context, ids)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        name = _head(context, index, len(blocks))
        block = matrix.ids[np.ix_(rows, cols)]
        if isinstance(matrix.definition, Constant):
            data = function(matrix.definition.data[np.ix_(rows, cols)])
            new = context.pool.constant(name, data)
        else:
            definition = Elementwise(block, function)
            new = context.pool.add(name, context.node, block.shape, definition)
        result[inside] = new.ravel()[_positions(matrix, rows, cols, ids[inside])]
    return result


def _sum(context: Context, left: Ids, right: Ids) -> Ids:
    """left + right in the layout of the operand that was computed last: where one of them is the
    end of a branch, that is the branch, whose product can then add the other one."""
    ranked = sorted((left, right), key=lambda ids: int(ids.max()))
    stream, branch = ranked
    result = np.empty(branch.shape, np.int64)
    blocks = _blocks(context, branch)
    for index, (matrix, inside, rows, cols) in enumerate(blocks):
        positions = _positions(matrix, rows, cols, branch[inside])
        other = np.empty(len(rows) * len(cols), np.int64)
        other[positions] = stream[inside]
        if not np.array_equal(other[positions], stream[inside]):
            raise context.unsupported("it makes different tensors of the same elements")
        block = matrix.ids[np.ix_(rows, cols)]
        definition = Sum(other.reshape(block.shape), block)
        name = _head(context, index, len(blocks))
        new = context.pool.add(name, context.node, block.shape, definition)
        result[inside] = new.ravel()[positions]
    return result
