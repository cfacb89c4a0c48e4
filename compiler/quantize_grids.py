"""The scales that a quantization-aware file brings along, where the hardware can take them."""

import numpy as np

from gateformer.compiler.graph import Copy, Gemm
from gateformer.compiler.grid import Grid
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.spec.errors import ModelError


class FileGrids:
    """narrow: scale and zero point of int8 tensors. rows: of each operation whose weights are the
    file's integers, the scale of each row. Other tensors have no grid in the file, or one that is
    dropped: the hardware keeps int16 tensors finer, and softmax's results in numerators of its own.

    Raises ModelError naming the node whose grid no engine has.
    """

    def __init__(self, form: IntegerForm) -> None:
        self._form = form
        self.narrow: dict[str, tuple[float, int]] = {}
        self.rows: dict[str, np.ndarray] = {}
        weights = {view.tensor for op in form.gemms if (view := form.weights(op))}
        for name in sorted(form.narrow - set(form.softmaxes) - weights):
            grid = form.graph.tensors[name].grid
            if grid is not None:
                self._check(name, grid)
                self.narrow[name] = float(grid.scale), int(grid.zero)
        for op in form.gemms:
            view = form.weights(op)
            grid = None if view is None else form.graph.tensors[view.tensor].grid
            if grid is None:
                continue
            if not form.follows(op) and np.ptp(grid.scale) > 0:
                raise ModelError(
                    f"{_label(op)}: its weights have a scale for each row, but its bias goes by "
                    "column; use one scale for all"
                )
            self.rows[op.name] = grid.scale

    @property
    def fixed(self) -> set[str]:
        """Tensors whose channels must stay as they are."""
        return {
            *self.narrow,
            *(self._form.other(o).tensor for o in self._form.gemms if o.name in self.rows),
        }

    def _check(self, name: str, grid: Grid) -> None:
        reason = None
        if grid.axis is not None:
            reason = "its result has a scale for each channel; use one for the whole tensor"
        elif grid.bits != 8:
            reason = f"its result is rounded to {grid.bits} bits, but products and softmax read 8"
        elif grid.zero:
            readers = [op for op in self._form.gemms if name in (op.a.tensor, op.b.tensor)]
            writers = [op for op in self._form.gemms if op.out.tensor == name]
            if any(self._form.weights(op) is None or not self._form.follows(op) for op in readers):
                reason = (
                    f"its result has the zero point {int(grid.zero)}, but a product of two "
                    "activations reads it; quantize activations symmetrically "
                    "(ActivationSymmetric in onnxruntime)"
                )
            elif any(op.a.tensor in self._form.softmaxes for op in writers):
                reason = (
                    f"its result has the zero point {int(grid.zero)}, which no engine adds behind "
                    "softmax's product; quantize activations symmetrically "
                    "(ActivationSymmetric in onnxruntime)"
                )
        if reason is not None:
            raise ModelError(f"{self._writer(name)}: {reason}")

    def _writer(self, name: str) -> str:
        """What to call the node that computes a tensor."""
        for op in self._form.graph.operations:
            target = op.out if isinstance(op, Gemm) else op.target
            if target.tensor == name and not isinstance(op, Copy) and op.nodes:
                return f"node {op.nodes[-1]!r}"
        return f"input {name!r}"


def _label(op: Gemm) -> str:
    return f"node {op.nodes[0]!r}" if op.nodes else f"operation {op.name!r}"
