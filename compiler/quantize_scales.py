"""Chooses the scale of every integer tensor of a graph."""

import math

import numpy as np

from gateformer.compiler import scales
from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.calibration import Calibration, Statistics, statistics_of
from gateformer.compiler.graph import Gemm, Norm, Role
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantize_grids import FileGrids
from gateformer.compiler.quantize_options import QuantizationOptions
from gateformer.compiler.smoothing import smooth
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ModelError

LARGEST_SCALE = 65535 / 65536
"""The largest ratio of a scale record."""
LARGEST_RECIPROCAL = 15.0
"""The largest ratio of V's scale to that of the result: softmax's numerator has 32 bits, 28 of them
fractional."""
LEAST_SCALE = 2.0**-22
"""The smallest ratio of a weight row: it leaves the record's multiplier 6 significant bits, and
what such a row adds to a result is less than one step."""
BIAS_LIMIT = 2.0**30
"""Magnitude of an int32 bias; the other half of the range is the products' and the zero point's."""


class Scales:
    """The numbers that turn a float graph into integers.

    narrow: scale and zero point of every int8 tensor but weights and softmax's results. wide: scale
    of every int16 tensor. activation: of each operation with an activation, the scale of what goes
    into it. channels: the int8 tensors whose channels are smoothed. grids: what the file decides.
    """

    def __init__(
        self,
        form: IntegerForm,
        config: AcceleratorConfig,
        calibration: Calibration,
        options: QuantizationOptions,
    ) -> None:
        self.narrow: dict[str, tuple[float, int]] = {}
        self.wide: dict[str, float] = {}
        self.activation: dict[str, float] = {}
        self.grids = FileGrids(form)
        channels = smooth(form, calibration, options.smoothing, options.centering)
        self.channels = {n: c for n, c in channels.items() if n not in self.grids.fixed}
        self._form = form
        self._graph = form.graph
        self._config = config
        self._calibration = calibration
        self._options = options
        self._limits = {op.name: self._weight_limits(op) for op in form.gemms if form.weights(op)}
        self._choose_narrow()
        self._choose_wide()
        self._raise()

    # ----------------------------------------------------------------------------- products

    def block(self, op: Gemm) -> np.ndarray:
        """The weights of an operation, times the factors of the channels that they meet."""
        channels = self.channels.get(self._form.other(op).tensor)
        block = self._form.block(op)
        return block if channels is None else block * channels.factors

    def bias(self, op: Gemm) -> np.ndarray | None:
        """The bias of an operation with weights, with the offsets of the channels they meet."""
        channels = self.channels.get(self._form.other(op).tensor)
        if channels is None or not channels.offsets.any():
            return op.bias
        moved = op.factor * (self._form.block(op) @ channels.offsets)
        return moved if op.bias is None else op.bias + moved

    def _weight_limits(self, op: Gemm) -> np.ndarray:
        limits = np.abs(self.block(op)).max(axis=1)
        if self._options.weights == "tensor" or not self._form.follows(op):
            return np.full(len(limits), limits.max())
        return limits

    def weight_rows(self, op: Gemm) -> np.ndarray:
        """The scale of each weight row: the file's own, or its largest weight is 127, unless the
        row is so small that its record or its bias would not fit. All rows share one where the bias
        goes by column."""
        follows = self._form.follows(op)
        unit = op.factor * self.narrow[self._form.other(op).tensor][0]
        result = self.grids.rows.get(op.name, self._limits[op.name] / 127)
        bias = self.bias(op)
        if bias is not None:
            limit = np.abs(bias) / (unit * BIAS_LIMIT)
            result = np.maximum(result, limit if follows else limit.max())
        least = LEAST_SCALE * self.result(op) / unit
        return np.maximum(result, least)

    def accumulators(self, op: Gemm) -> np.ndarray:
        """The real value of 1 in the product's sums: one for each weight row, or one for all."""
        if self._form.weights(op) is None:
            left, right = self.narrow[op.a.tensor][0], self.narrow[op.b.tensor][0]
            return np.array([op.factor * left * right])
        return op.factor * self.narrow[self._form.other(op).tensor][0] * self.weight_rows(op)

    def result(self, op: Gemm) -> float:
        """The scale of what the record's multiplication gives."""
        if op.activation is not None:
            return self.activation[op.name]
        name = op.out.tensor
        return self.wide[name] if name in self._form.wide else self.narrow[name][0]

    def reciprocal(self, op: Gemm) -> float:
        """Of a product of softmax's result: the scale of V over that of its own result."""
        return op.factor * self.narrow[op.b.tensor][0] / self.result(op)

    # ------------------------------------------------------------------------------ tensors

    def _statistics(self, name: str) -> Statistics:
        data = self._graph.tensors[name].data
        return self._calibration.tensors[name] if data is None else statistics_of(data)

    def _choose_narrow(self) -> None:
        """Scales of int8 tensors but weights, and of what goes into activations."""
        options, form = self._options, self._form
        met = {view.tensor for op in form.gemms if (view := form.weights(op))}
        for name in sorted(form.narrow - set(form.softmaxes) - met):
            if name in self.grids.narrow:
                self.narrow[name] = self.grids.narrow[name]
                continue
            statistics = self._statistics(name)
            if name in self.channels:
                channels = self.channels[name]
                statistics = statistics.mapped(channels.factors, channels.offsets)
            if name in form.scores:
                scale = scales.symmetric_scale(statistics, 8, "minmax") * options.scores_headroom
                self.narrow[name] = scale, 0
            elif name in form.affine and options.zero_points:
                self.narrow[name] = scales.affine_scale(
                    statistics, options.estimator, options.percentile
                )
            else:
                scale = scales.symmetric_scale(statistics, 8, options.estimator, options.percentile)
                self.narrow[name] = scale, 0
        for op in form.gemms:
            if op.activation is not None:
                scale, zero = self.narrow[op.out.tensor]
                self.activation[op.name] = scales.activation_input_scale(
                    self._calibration.activations[op.name],
                    ACTIVATIONS[op.activation],
                    scale,
                    zero,
                    self._config.activation_bits,
                )

    def _choose_wide(self) -> None:
        """One scale for every group of int16 tensors: nothing that calibration saw saturates."""
        options, form = self._options, self._form
        bits = min(options.residual_bits or 16, self._config.residual_bits)
        top = (1 << (bits - 1)) - 1
        for root in sorted(set(form.groups.values())):
            members = {name for name, group in form.groups.items() if group == root}
            limit = max(self._statistics(name).limit for name in members)
            for op in form.gemms:
                if op.residual is not None and op.out.tensor in members:
                    limit = max(limit, self._calibration.residuals[op.name].limit)
            output = any(self._graph.tensors[name].role == Role.OUTPUT for name in members)
            headroom = options.output_headroom if output else options.stream_headroom
            scale = scales.positive(limit) * headroom / top
            for norm in self._graph.operations:
                if isinstance(norm, Norm) and norm.source.tensor in members:
                    # The norm takes an epsilon of at most 32 bits, in codes squared.
                    scale = max(scale, norm.source.cols * math.sqrt(norm.epsilon / (2**32 - 2)))
            self.wide.update(dict.fromkeys(members, scale))

    def _raise(self) -> None:
        """Makes output scales as coarse as records need: a record multiplies by less than 1."""
        for op in self._form.gemms:
            if op.a.tensor in self._form.softmaxes:
                largest, ratio = LARGEST_RECIPROCAL, self.reciprocal(op)
            else:
                largest = LARGEST_SCALE
                ratio = float(np.max(self.accumulators(op) / self.result(op)))
            if ratio > largest:
                self._coarsen(op, ratio / largest)

    def _coarsen(self, op: Gemm, by: float) -> None:
        name = op.out.tensor
        if op.activation is not None:
            self.activation[op.name] *= by
        elif name in self._form.wide:
            group = self._form.groups[name]
            for member in self._form.groups:
                if self._form.groups[member] == group:
                    self.wide[member] *= by
        elif name in self.grids.narrow:
            raise ModelError(
                f"operation {op.name!r}: the file rounds its result to a scale that is {by:.3g} "
                "times finer than the sums it comes from, which no scale record can multiply by"
            )
        else:
            scale, zero = self.narrow[name]
            self.narrow[name] = scale * by, zero
