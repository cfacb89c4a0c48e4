"""What onnx's shape inference does not find: operands that do not fit each other."""

import math
from collections.abc import Mapping

import numpy as np

from gateformer.compiler.importer_node import Node
from gateformer.spec.errors import ModelError

Shape = tuple[int, ...]


def check_operands(
    node: Node, shapes: list[Shape | None], result: Shape, constants: Mapping[str, np.ndarray]
) -> None:
    """Raises ModelError where a node's operands do not fit.

    shapes: of the inputs, None for absent ones. result: the shape that was inferred.
    """
    try:
        fits = _fit(node, shapes, result, constants)
    except IndexError:  # too few axes
        fits = False
    if not fits:
        shown = ", ".join(str(list(shape)) for shape in shapes if shape is not None)
        raise ModelError(f"{node}: its operands of shapes {shown} do not fit each other")


def _fit(
    node: Node, shapes: list[Shape | None], result: Shape, constants: Mapping[str, np.ndarray]
) -> bool:
    first, second, third = [*shapes, None, None, None][:3]
    if first is None:
        return True
    match node.operator:
        case "Reshape":
            return math.prod(first) == math.prod(result)
        case "Gemm" if second:
            k = first[0 if node.attributes.get("transA") else 1]
            other = second[1 if node.attributes.get("transB") else 0]
            return len(first) == len(second) == 2 and k == other and _broadcasts(third, result)
        case "Conv" if second:
            channels = second[1] * node.attributes.get("group", 1)
            kernel = tuple(node.attributes.get("kernel_shape", second[2:]))
            fits = first[1] == channels and kernel == second[2:] and min(second) > 0
            return fits and third in (None, second[:1])
        case "LayerNormalization":
            width = first[node.attributes.get("axis", -1) :]
            return _broadcasts(second, width) and _broadcasts(third, width)
        case "Gather" if node.inputs[1] in constants:
            indices = constants[node.inputs[1]]
            size = first[node.attributes.get("axis", 0)]
            return not indices.size or bool(-size <= indices.min() and indices.max() < size)
    return True


def _broadcasts(shape: Shape | None, target: Shape) -> bool:
    if shape is None:
        return True
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], target[::-1], strict=False)
    )
