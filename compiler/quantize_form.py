"""Which tensors of a float graph become int8 and which int16, and which of them share a scale."""

from dataclasses import replace

import numpy as np

from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Role, Softmax, View
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ModelError


class IntegerForm:
    """What follows from the graph alone, before any value is known.

    narrow: tensors that products and softmax read, in int8. wide: those that norms, residuals and
    the host read, in int16; a tensor may be both. groups: of every wide tensor the name of the
    group that shares its scale. affine: narrow tensors that may have a zero point.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gemms = [op for op in graph.operations if isinstance(op, Gemm)]
        self.softmaxes = {
            op.target.tensor: op for op in graph.operations if isinstance(op, Softmax)
        }
        self.scores = {op.source.tensor for op in self.softmaxes.values()}
        self.narrow, self.wide = self._kinds()
        self.groups = self._stream_groups()
        self.affine = self._affine()

    def check(self, config: AcceleratorConfig) -> None:
        """Raises ModelError for an operation that has no integer form or none in this config."""
        for op in self.gemms:
            if {op.out.tensor} & self.narrow & self.wide:
                raise ModelError(
                    f"operation {op.name!r}: its result is read by a product and also added, "
                    "normalized or returned, but no engine writes both int8 and int16 of it"
                )
            if op.factor <= 0:
                raise ModelError(f"operation {op.name!r}: its factor {op.factor} is not positive")
            if op.b.tensor in self.softmaxes:
                raise ModelError(
                    f"operation {op.name!r}: the result of softmax must be its left operand"
                )
            if op.a.tensor in self.softmaxes and (op.bias is not None or op.activation):
                raise ModelError(
                    f"operation {op.name!r}: no bias or activation may follow softmax's product"
                )
            polynomial = config.gelu == "polynomial"
            if polynomial and op.activation not in (None, "gelu", "gelu_tanh"):
                raise ModelError(
                    f"operation {op.name!r} ends in {op.activation}: the polynomial computes GELU "
                    'only; use gelu = "table"'
                )

    # ----------------------------------------------------------------------------- operands

    def weights(self, op: Gemm) -> View | None:
        """The operand that holds constant weights, the right one where both are constant."""
        for view in (op.b, op.a):
            if self.graph.tensors[view.tensor].role == Role.CONSTANT:
                return view
        return None

    def other(self, op: Gemm) -> View:
        """The operand beside the weights."""
        return op.a if self.weights(op) is op.b else op.b

    def block(self, op: Gemm) -> np.ndarray:
        """The weights of an operation, [rows, k]."""
        view = self.weights(op)
        assert view is not None
        data = self.graph.tensors[view.tensor].data
        assert data is not None
        return data[view.row : view.row + view.rows, view.col : view.col + view.cols]

    def follows(self, op: Gemm) -> bool:
        """Whether each weight row can have a scale of its own: the bias goes the same way."""
        return op.bias is None or op.by_row == (self.weights(op) is op.a)

    # -------------------------------------------------------------------------------- kinds

    def _kinds(self) -> tuple[set[str], set[str]]:
        narrow: set[str] = set()
        wide: set[str] = set()
        for op in self.graph.operations:
            match op:
                case Gemm():
                    narrow |= {op.a.tensor, op.b.tensor}
                    if op.residual is not None:
                        wide |= {op.residual.tensor, op.out.tensor}
                    if op.activation is not None:
                        narrow.add(op.out.tensor)
                case Softmax():
                    narrow |= {op.source.tensor, op.target.tensor}
                case Norm():
                    wide.add(op.source.tensor)
                case Copy():
                    wide |= {op.source.tensor, op.target.tensor}
        activated = {op.out.tensor for op in self.gemms if op.activation is not None}
        for tensor in self.graph.tensors.values():
            if tensor.role == Role.OUTPUT and tensor.name not in activated:
                wide.add(tensor.name)
        return narrow, wide

    def _stream_groups(self) -> dict[str, str]:
        group = {name: name for name in self.wide}

        def find(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for op in self.graph.operations:
            if isinstance(op, Gemm) and op.residual is not None:
                group[find(op.out.tensor)] = find(op.residual.tensor)
            elif isinstance(op, Copy):
                group[find(op.source.tensor)] = find(op.target.tensor)
        return {name: find(name) for name in group}

    def _affine(self) -> set[str]:
        """Tensors written by activations or the host alone, and met by weights alone."""
        writers: dict[str, set[str | None]] = {}
        for op in self.graph.operations:
            view = op.out if isinstance(op, Gemm) else op.target
            kind = op.activation if isinstance(op, Gemm) else None
            writers.setdefault(view.tensor, set()).add(kind)
        names = {name for name, kinds in writers.items() if None not in kinds}
        names |= {t.name for t in self.graph.tensors.values() if t.role == Role.INPUT}
        for op in self.gemms:
            if self.weights(op) is None or not self.follows(op):
                names -= {op.a.tensor, op.b.tensor}
        return names & self.narrow

    # -------------------------------------------------------------------------------- names

    def narrow_name(self, name: str) -> str:
        """The name of a tensor's int8 form."""
        return f"{name}/int8" if self._both(name) and self._is_output(name) else name

    def wide_name(self, name: str) -> str:
        """The name of a tensor's int16 form."""
        return f"{name}/int16" if self._both(name) and not self._is_output(name) else name

    def narrow_view(self, view: View) -> View:
        return replace(view, tensor=self.narrow_name(view.tensor))

    def wide_view(self, view: View) -> View:
        return replace(view, tensor=self.wide_name(view.tensor))

    def _both(self, name: str) -> bool:
        return name in self.narrow and name in self.wide

    def _is_output(self, name: str) -> bool:
        return self.graph.tensors[name].role == Role.OUTPUT
