"""One program for several samples: the integer graph of a batch.

Products with weights, norms and residuals run over the rows of all samples one below the other, so
that weights are read once for all of them. What belongs to one sample (attention, and products that
read or write some of its rows) is repeated for each. A tensor that only repeated operations touch
has a copy for each sample; the others hold all samples, below each other or, where their columns
are a sample's rows (values, transposed), side by side.

Or the samples run in turn, and what lives of one is gone before the next one comes. Then all is
repeated but what a model ends with on few rows, such as a class token's: it runs once, at the end.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, takewhile

from gateformer.compiler.graph import Role, View
from gateformer.compiler.quantized import (
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
)
from gateformer.compiler.views import map_views, reads, views_written, writes
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ConfigError


def batch(
    graph: QuantizedGraph, samples: int, config: AcceleratorConfig, *, in_turn: bool = False
) -> QuantizedGraph:
    """The graph for `samples` samples. in_turn: each goes through the operations, in the order that
    they have, before the next one. Raises ConfigError for more than the config has."""
    check_batch(samples, config)
    return graph if samples == 1 else _Batch(graph, samples, config, in_turn=in_turn).run()


def check_batch(samples: int, config: AcceleratorConfig) -> None:
    """Raises ConfigError when the config cannot run so many samples together."""
    if not 1 <= samples <= config.samples:
        raise ConfigError(
            f"a batch of {samples} does not fit config {config.name!r}: it runs 1 to "
            f"{config.samples} samples together (samples)"
        )


class _Batch:
    def __init__(
        self, graph: QuantizedGraph, samples: int, config: AcceleratorConfig, *, in_turn: bool
    ) -> None:
        self._graph = graph
        self._samples = samples
        self._word, self._rows = config.word_bytes, config.rows
        self._aside = self._side_by_side()
        ends = takewhile(self._ends, reversed(graph.operations))
        once = ends if in_turn else (op for op in graph.operations if self._runs_once(op))
        self._stacked = {id(op) for op in once}
        self._shared = {
            name
            for op in graph.operations
            for name in (*reads(op), *writes(op))
            if id(op) in self._stacked
        }
        self._shared |= {
            t.name for t in graph.tensors.values() if t.role in (Role.INPUT, Role.OUTPUT)
        }

    def run(self) -> QuantizedGraph:
        tensors = {
            t.name: t for tensor in self._graph.tensors.values() for t in self._copies(tensor)
        }
        operations: list[QOperation] = []
        for once, group in groupby(self._graph.operations, lambda op: id(op) in self._stacked):
            part = list(group)
            if once:
                operations += [map_views(op, self._all) for op in part]
                continue
            for sample in range(self._samples):
                operations += [self._repeated(op, sample) for op in part]
        return replace(
            self._graph,
            tensors=tensors,
            operations=tuple(operations),
            samples=self._samples,
        )

    # ------------------------------------------------------------------------------- tensors

    def _constant(self, name: str) -> bool:
        return self._graph.tensors[name].role is Role.CONSTANT

    def _side_by_side(self) -> set[str]:
        """Tensors whose columns are rows of a sample: what weights make of a right operand."""
        found: set[str] = set()
        for op in self._graph.operations:
            if isinstance(op, QGemm) and self._constant(op.a.tensor):
                output = self._graph.tensors[op.out.tensor].role is Role.OUTPUT
                if not output and op.b.tensor not in found and not self._constant(op.b.tensor):
                    found.add(op.out.tensor)
        return found

    def _copies(self, tensor: QTensor) -> Iterator[QTensor]:
        count = self._samples
        if tensor.role is Role.CONSTANT:
            yield tensor
        elif tensor.name not in self._shared:
            for sample in range(count):
                yield replace(tensor, name=_name(tensor.name, sample), sample=sample)
        elif tensor.name in self._aside:
            yield replace(tensor, cols=count * tensor.cols, segment=tensor.cols, samples=count)
        else:
            yield replace(tensor, rows=count * tensor.rows, samples=count)

    # ---------------------------------------------------------------------------- operations

    def _runs_once(self, op: QOperation) -> bool:
        """Whether one operation can do the rows of all samples."""
        match op:
            case QGemm() if self._constant(op.b.tensor) and not self._constant(op.a.tensor):
                views = [op.a, op.out, *([] if op.residual is None else [op.residual])]
                return not op.by_row and not isinstance(op.records, str) and self._stackable(views)
            case QGemm() if self._constant(op.a.tensor) and not self._constant(op.b.tensor):
                # All columns in one run: there is no padding between the samples.
                dense = op.residual is None and op.by_row and op.out.cols % self._word == 0
                out = self._graph.tensors[op.out.tensor]
                whole = (op.out.row, op.out.rows, op.out.cols) == (0, out.rows, out.cols)
                aside = op.out.tensor in self._aside and op.b.tensor not in self._aside
                return dense and whole and aside and self._stackable([op.b])
            case QNorm():
                targets = [gain.target for gain in op.gains]
                return self._stackable([op.source, *targets])
        return False

    def _ends(self, op: QOperation) -> bool:
        """Whether an operation at the end waits for all samples: it has no more rows than a
        tile."""
        return self._runs_once(op) and views_written(op)[0].rows <= self._rows

    def _stackable(self, views: list[View]) -> bool:
        """Whether the views are all rows of tensors that hold samples below each other."""
        return not any(
            self._constant(view.tensor)
            or view.tensor in self._aside
            or (view.row, view.rows) != (0, self._graph.tensors[view.tensor].rows)
            for view in views
        )

    def _all(self, view: View) -> View:
        """The view of one sample, widened to all of them."""
        if self._constant(view.tensor):
            return view
        if view.tensor in self._aside:
            return replace(view, cols=self._samples * view.cols)
        return replace(view, rows=self._samples * view.rows)

    def _one(self, view: View, sample: int) -> View:
        """The view of one sample, moved to where that sample lies."""
        if self._constant(view.tensor):
            return view
        if view.tensor not in self._shared:
            return replace(view, tensor=_name(view.tensor, sample))
        tensor = self._graph.tensors[view.tensor]
        if view.tensor in self._aside:
            return replace(view, col=sample * tensor.cols + view.col)
        return replace(view, row=sample * tensor.rows + view.row)

    def _repeated(self, op: QOperation, sample: int) -> QOperation:
        op = map_views(op, lambda view: self._one(view, sample))
        name = _name(op.name, sample)
        if isinstance(op, QSoftmax):
            return replace(op, name=name, records=_name(op.records, sample))
        if isinstance(op, QGemm) and isinstance(op.records, str):
            return replace(op, name=name, records=_name(op.records, sample))
        return replace(op, name=name)


def _name(name: str, sample: int) -> str:
    return f"{name}@{sample}"
