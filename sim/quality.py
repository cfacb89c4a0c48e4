"""How close the integer graph is to float, operation by operation.

Two noises are told apart. The noise of a result is its difference from the float graph's: it holds
what all operations before added. An operation's own noise is the difference of its integer result
from the float operation on the same integer inputs: what this one operation adds.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gateformer.compiler.calibration import sample_length
from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.float_execution import counted, evaluate, run_float
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.graph import (
    Copy,
    Gemm,
    Graph,
    Norm,
    Operation,
    Role,
    Softmax,
    View,
    whole,
)
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.reference import reference_session, run_reference
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import GateformerError

Sample = Mapping[str, np.ndarray]
Reference = Callable[[Sample], Sample]
"""From a sample to the model's outputs in float."""


@dataclass
class Comparison:
    """Sums over all values that were compared."""

    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    got: float = 0.0

    def add(self, exact: np.ndarray, got: np.ndarray) -> None:
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(got - exact).sum())
        self.product += float((exact * got).sum())
        self.got += float(np.square(got).sum())

    @property
    def ratio(self) -> float:
        """Noise over signal, in power."""
        return self.noise / self.signal if self.signal else 0.0

    @property
    def decibels(self) -> float:
        """Signal over noise; at most 150 dB."""
        return float(-10 * np.log10(max(self.ratio, 1e-15)))

    @property
    def cosine(self) -> float:
        norm = np.sqrt(self.signal * self.got)
        return float(self.product / norm) if norm else 1.0


@dataclass(frozen=True)
class LayerQuality:
    """One operation's result against float.

    form: the integer type written. snr, own_snr: dB. saturated: values at the limit of their codes
    that float puts beyond it, of `values` in all.
    """

    name: str
    kind: str
    form: str
    snr: float
    cosine: float
    own_snr: float
    saturated: int
    values: int


@dataclass(frozen=True)
class OutputQuality:
    """One output of the model against float; cosines: of every sample."""

    name: str
    snr: float
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class Quality:
    """outputs: of the whole model. layers: in the order in which they run."""

    samples: int
    outputs: tuple[OutputQuality, ...]
    layers: tuple[LayerQuality, ...]

    def costly(self, count: int) -> list[LayerQuality]:
        """The layers that add most noise of their own, worst first."""
        return sorted(self.layers, key=lambda layer: layer.own_snr)[:count]

    def as_dict(self) -> dict[str, Any]:
        record = asdict(self)
        for output, described in zip(self.outputs, record["outputs"], strict=True):
            described["cosine_mean"] = float(np.mean(output.cosines))
            described["cosine_min"] = float(np.min(output.cosines))
        record["costly"] = [layer.name for layer in self.costly(10)]
        return record


def measure(
    graph: Graph,
    quantized: QuantizedGraph,
    config: AcceleratorConfig,
    samples: Iterable[Sample],
    reference: Reference,
) -> Quality:
    """Runs float and integer graph on samples (ONNX names) and compares every operation.

    reference: what gives the outputs that the model's are compared with, such as onnxruntime.
    Raises DataError for a sample that the model cannot run.
    """
    measurement = _Measurement(graph, quantized, config)
    for sample in samples:
        measurement.add(sample, reference(sample))
    return measurement.result()


@dataclass
class _Result:
    """What an operation writes into one integer tensor, summed up over the samples."""

    op: Operation
    view: View
    tensor: QTensor
    total: Comparison
    own: Comparison
    saturated: int = 0
    values: int = 0

    def quality(self) -> LayerQuality:
        return LayerQuality(
            self.op.name,
            type(self.op).__name__.lower(),
            self.tensor.kind,
            self.total.decibels,
            self.total.cosine,
            self.own.decibels,
            self.saturated,
            self.values,
        )


def measure_model(
    model: CompiledModel, samples: Iterable[Sample], progress: Callable[[], None] = lambda: None
) -> Quality:
    """Compares a compiled model with onnxruntime's run of the file that it was made from.

    progress: called after each sample. Raises GateformerError where the folder lacks that file or
    the integer graph.
    """
    if model.source is None or model.quantized is None:
        raise GateformerError(
            "the compiled folder lacks its source model or its integer graph: compile it again"
        )
    shapes = {name: tuple(shape) for name, shape in model.record["shapes"].items()}
    imported = import_model(model.source, shapes)
    session = reference_session(model.source)
    types = {name: imported.values[name].dtype for name in imported.inputs}

    def reference(sample: Sample) -> Sample:
        feeds = {name: sample[name].astype(types[name]) for name in imported.inputs}
        results = run_reference(session, imported.outputs, feeds)
        progress()
        return results

    return measure(lower(imported), model.quantized, model.config, samples, reference)


class _Measurement:
    def __init__(self, graph: Graph, quantized: QuantizedGraph, config: AcceleratorConfig) -> None:
        self._graph, self._quantized, self._config = graph, quantized, config
        self._form = IntegerForm(graph)
        self._before, self._after = HostRunner(graph.host.before), HostRunner(graph.host.after)
        self._results = [
            _Result(op, view, quantized.tensors[name], Comparison(), Comparison())
            for op in graph.operations
            if not isinstance(op, Copy)
            for view, name in self._targets(op)
        ]
        self._outputs: dict[str, tuple[Comparison, list[float]]] = {}
        self._samples = 0

    def result(self) -> Quality:
        outputs = tuple(
            OutputQuality(name, total.decibels, tuple(cosines))
            for name, (total, cosines) in self._outputs.items()
        )
        return Quality(self._samples, outputs, tuple(r.quality() for r in self._results))

    def add(self, sample: Sample, expected: Sample) -> None:
        self._samples += 1
        matrices = self._before.run(sample)
        length = sample_length(self._graph, matrices)
        exact = run_float(self._graph, matrices, length=length, short=True)
        inputs = {
            t.name: quantize_input(t, matrices[t.name], self._config.residual_bits)
            for t in self._quantized.tensors.values()
            if t.role is Role.INPUT
        }
        lengths = None if length is None else [length]
        codes = run_quantized(self._quantized, inputs, self._config, lengths)
        values = self._dequantized(codes)
        for result in self._results:
            view, name = result.view, result.tensor.name
            tensor = self._graph.tensors[view.tensor]
            own = self._own(result.op, values, length)
            parts = (_block(m, view) for m in (exact[tensor.name], values[name], codes[name]))
            real, got, code = (counted(tensor, view, part, length) for part in parts)
            result.total.add(real, got)
            result.own.add(own, got)
            result.values += got.size
            result.saturated += self._saturated(result, real, code)
        self._compare(sample, values, expected, length)

    def _targets(self, op: Operation) -> list[tuple[View, str]]:
        """What an operation writes: the view, and the names of its integer tensors."""
        view = op.out if isinstance(op, Gemm) else op.target
        name = view.tensor
        names = {self._form.narrow_name(name)} if name in self._form.narrow else set()
        names |= {self._form.wide_name(name)} if name in self._form.wide else set()
        return [(view, name) for name in sorted(names)]

    def _dequantized(self, codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The values that codes stand for, by integer tensor; weights are float's own."""
        values = {}
        for name, tensor in self._quantized.tensors.items():
            if name in self._form.softmaxes:
                totals = codes[name].sum(axis=1, keepdims=True, dtype=np.int64)
                values[name] = codes[name] / np.maximum(totals, 1)
            elif tensor.scale is not None:
                values[name] = dequantize(tensor, codes[name])
            elif tensor.role is Role.CONSTANT:
                data = self._graph.tensors[name].data
                assert data is not None
                values[name] = data
        return values

    def _own(
        self, op: Operation, values: Mapping[str, np.ndarray], length: int | None
    ) -> np.ndarray:
        """The float result of an operation on the values of its integer inputs."""
        form = self._form
        match op:
            case Gemm():
                residual = None if op.residual is None else form.wide_view(op.residual)
                a, b = form.narrow_view(op.a), form.narrow_view(op.b)
                op = replace(op, a=a, b=b, residual=residual)
            case Softmax():
                op = replace(op, source=form.narrow_view(op.source))
            case Norm() | Copy():
                op = replace(op, source=form.wide_view(op.source))

        def at(view: View) -> np.ndarray:
            tensor = self._quantized.tensors[view.tensor]
            return counted(tensor, view, _block(values[view.tensor], view), length)

        return evaluate(op, at)

    def _saturated(self, result: _Result, exact: np.ndarray, codes: np.ndarray) -> int:
        """Codes at their limit where float is beyond it."""
        tensor, view = result.tensor, result.view
        if tensor.scale is None:
            return 0
        values = exact
        if tensor.channels is not None:
            cols = np.s_[view.col : view.col + exact.shape[1]]
            values = (exact - tensor.channels.offsets[cols]) / tensor.channels.factors[cols]
        real = np.rint(values / tensor.scale) + tensor.zero
        top = (1 << ((8 if tensor.kind == "int8" else self._config.residual_bits) - 1)) - 1
        beyond = (codes == top) & (real > top) | (codes == -top - 1) & (real < -top - 1)
        return int(beyond.sum())

    def _compare(
        self, sample: Sample, values: Sample, expected: Sample, length: int | None
    ) -> None:
        """The model's outputs, after the host's part; but for what stands for padding, which is
        whatever depends on the tokens beyond the length."""
        results, others = (
            self._after.run({**sample, **self._padded(values, length, padding)})
            for padding in (0.0, 1.0)
        )
        for name, result in results.items():
            counts = np.asarray(result) == np.asarray(others[name])
            got = np.asarray(result, np.float64)[counts]
            exact = np.asarray(expected[name], np.float64)[counts]
            total, cosines = self._outputs.setdefault(name, (Comparison(), []))
            one = Comparison()
            total.add(exact, got)
            one.add(exact, got)
            cosines.append(one.cosine)

    def _padded(self, values: Sample, length: int | None, padding: float) -> Sample:
        """The graph's outputs with a value of no meaning for the tokens beyond the length."""
        feeds = {}
        for tensor in self._graph.tensors.values():
            if tensor.role is Role.OUTPUT:
                known = counted(tensor, whole(tensor), values[tensor.name], length)
                feeds[tensor.name] = np.full((tensor.rows, tensor.cols), padding)
                feeds[tensor.name][: known.shape[0], : known.shape[1]] = known
        return feeds


def _block(array: np.ndarray, view: View) -> np.ndarray:
    return array[view.row : view.row + view.rows, view.col : view.col + view.cols]
