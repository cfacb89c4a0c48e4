"""What a handler of an ONNX operator works with, and the registry of handlers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gateformer.compiler import importer
from gateformer.compiler.importer import ImportedModel, Node
from gateformer.compiler.importer_file import first_line
from gateformer.compiler.lowering_matrices import Ids, Pool, Symbol, UnsupportedError
from gateformer.compiler.lowering_statistics import OUTSIDE, Operand, Statistic
from gateformer.spec.errors import ModelError

Result = Symbol | Statistic | np.ndarray


@dataclass(frozen=True)
class Context:
    """The node to handle, in its model, and the pool that takes its matrices."""

    model: ImportedModel
    pool: Pool
    node: Node

    @property
    def name(self) -> str:
        """What the node computes."""
        return self.node.outputs[0]

    def part_name(self, index: int, count: int) -> str:
        """The name of one of `count` matrices that the node makes."""
        return self.name if count == 1 else f"{self.name}/{index}"

    def unsupported(self, reason: str) -> UnsupportedError:
        return UnsupportedError(self.node, reason)

    def constant(self, operand: Operand, what: str) -> np.ndarray:
        """The operand, float64; raises UnsupportedError when it is not constant."""
        if not isinstance(operand, np.ndarray):
            raise self.unsupported(f"no engine takes {what} that is not constant")
        return operand.astype(np.float64)

    def evaluate(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The node's outputs for arrays. Raises UnsupportedError where ONNX's reference
        implementation fails."""
        try:
            return importer.evaluate(self.node, feeds, self.model.opset)
        except Exception as error:  # the reference implementation raises whatever it likes
            raise self.unsupported(f"it cannot be computed: {first_line(error)}") from None

    def steps(self, index: int, axis: int) -> np.ndarray | None:
        """The steps of a constant input that the file holds as integers, for each place along the
        axis of the product's results, or one for all.

        Raises ModelError for integers that no engine multiplies by.
        """
        grid = self.model.quantization.get(self.node.inputs[index])
        if grid is None:
            return None
        reason = None
        if grid.bits > 8:
            reason = f"its weights are integers of {grid.bits} bits, but products read 8"
        elif np.any(grid.zero):
            reason = "its weights have a zero point; quantize weights symmetrically"
        elif grid.axis not in (None, axis):
            reason = "its weights have a scale for each input; use one for each output"
        if reason is not None:
            raise ModelError(f"{self.node}: {reason}")
        return grid.scale

    def symbol(self, operand: Operand) -> Ids:
        """The elements of the operand; a constant becomes a matrix."""
        if isinstance(operand, Symbol):
            return operand.ids
        if isinstance(operand, np.ndarray):
            return self.pool.constant(f"{self.name}/constant", operand)
        if isinstance(operand, Statistic):
            raise UnsupportedError(operand.node, OUTSIDE)
        raise self.unsupported("an input is missing")


Handler = Callable[[Context, list[Operand]], Result]
"""From a node's operands to its first output; raises UnsupportedError when no engine can do it."""
HANDLERS: dict[str, Handler] = {}
PRODUCTS = frozenset({"Conv", "Einsum", "Gemm", "MatMul"})
ENGINE_OPERATORS = PRODUCTS | {"LayerNormalization"}
"""Operators that make the accelerator start. After it, the host runs them for one row at most."""
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
TRANSPARENT = MOVEMENT | {"Cast", "Dropout", "Identity"}
"""Operators whose results are elements of their input."""


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler under the names of its operators."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


def readers(
    model: ImportedModel, name: str, through: frozenset[str] = TRANSPARENT
) -> list[Node] | None:
    """The nodes that read a value, looking through some operators; None where the model's outputs
    do."""
    names = {name}
    found = []
    for node in model.nodes:
        if names.isdisjoint(node.inputs):
            continue
        if node.operator in through:
            names |= set(node.outputs)
        else:
            found.append(node)
    return found if names.isdisjoint(model.outputs) else None
