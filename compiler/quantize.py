"""Float Graph and calibration -> QuantizedGraph."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gateformer.compiler import codes, scales
from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.calibration import Calibration, Statistics, calibrate
from gateformer.compiler.graph import (
    Copy,
    Gemm,
    Graph,
    Norm,
    Role,
    Softmax,
    Tensor,
    View,
)
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    QuantizedGraph,
    Records,
)
from gateformer.compiler.scales import ESTIMATORS, Estimator
from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ConfigError, ModelError

STREAM_HEADROOM = 1.25
"""Range of the residual stream over what calibration saw."""
SCORES_HEADROOM = 1.25
"""Range of softmax's scores over what calibration saw: where the largest score of a row saturates,
the row is lost, while a coarser step makes every probability a little less exact."""
OUTPUT_HEADROOM = 1.5
"""Range of the model's outputs over what calibration saw."""
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


@dataclass(frozen=True)
class QuantizationOptions:
    """estimator: how the ranges of int8 tensors are chosen from the calibration samples."""

    estimator: Estimator = "mse"

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ConfigError(f"estimator is {self.estimator!r}: one of {', '.join(ESTIMATORS)}")


def quantize(
    graph: Graph,
    config: AcceleratorConfig,
    calibration_inputs: Mapping[str, np.ndarray],
    options: QuantizationOptions | None = None,
) -> QuantizedGraph:
    """The integer graph.

    Every float tensor becomes int8 where products and softmax read it and int16 where norms,
    residuals and the host do; a tensor of both kinds (only a norm can write both) becomes two, the
    second one named "<name>/int16" (or, for an OUTPUT, the int8 one "<name>/int8").
    calibration_inputs: as for `calibrate`. Raises ModelError naming the operation that has no
    integer form or none in this config, DataError for wrong samples.
    """
    options = options or QuantizationOptions()
    return _Quantizer(graph, config, calibrate(graph, calibration_inputs), options).run()


class _Quantizer:
    def __init__(
        self,
        graph: Graph,
        config: AcceleratorConfig,
        calibration: Calibration,
        options: QuantizationOptions,
    ) -> None:
        self._graph = graph
        self._config = config
        self._calibration = calibration
        self._estimator: Estimator = options.estimator
        self._gemms = [op for op in graph.operations if isinstance(op, Gemm)]
        self._softmaxes = {
            op.target.tensor: op for op in graph.operations if isinstance(op, Softmax)
        }
        self._narrow, self._wide = self._kinds()
        self._groups = self._stream_groups()
        self._scale8: dict[str, tuple[float, int]] = {}
        self._scale16: dict[str, float] = {}
        self._input_scale: dict[str, float] = {}
        """Of each operation with an activation: the scale of what goes into it."""
        self._tensors: dict[str, QTensor] = {}
        self._operations: list[QOperation] = []

    def run(self) -> QuantizedGraph:
        self._check()
        self._choose_narrow()
        self._choose_wide()
        self._raise_scales()
        for tensor in self._graph.tensors.values():
            self._declare(tensor)
        for op in self._graph.operations:
            match op:
                case Gemm():
                    self._operations.append(self._gemm(op))
                case Softmax():
                    self._operations.append(self._softmax(op))
                case Norm():
                    self._operations.append(self._norm(op))
                case Copy():
                    source, target = self._wide_view(op.source), self._wide_view(op.target)
                    self._operations.append(QCopy(op.name, source, target))
        return QuantizedGraph(self._tensors, tuple(self._operations))

    # ------------------------------------------------------------------------------- kinds

    def _kinds(self) -> tuple[set[str], set[str]]:
        """The tensors that are needed in int8 and in int16."""
        narrow: set[str] = set()
        wide: set[str] = set()
        for op in self._graph.operations:
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
        activated = {op.out.tensor for op in self._gemms if op.activation is not None}
        for tensor in self._graph.tensors.values():
            if tensor.role == Role.OUTPUT and tensor.name not in activated:
                wide.add(tensor.name)
        return narrow, wide

    def _stream_groups(self) -> dict[str, str]:
        """Tensors in int16 that share one scale: the name of each one's group."""
        group = {name: name for name in self._wide}

        def find(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for op in self._graph.operations:
            if isinstance(op, Gemm) and op.residual is not None:
                group[find(op.out.tensor)] = find(op.residual.tensor)
            elif isinstance(op, Copy):
                group[find(op.source.tensor)] = find(op.target.tensor)
        return {name: find(name) for name in group}

    def _check(self) -> None:
        for op in self._graph.operations:
            if not isinstance(op, Gemm):
                continue
            both = {op.out.tensor} & self._narrow & self._wide
            if both:
                raise ModelError(
                    f"operation {op.name!r}: its result is read by a product and also added, "
                    "normalized or returned, but no engine writes both int8 and int16 of it"
                )
            if op.factor <= 0:
                raise ModelError(f"operation {op.name!r}: its factor {op.factor} is not positive")
            if op.b.tensor in self._softmaxes:
                raise ModelError(
                    f"operation {op.name!r}: the result of softmax must be its left operand"
                )
            if op.a.tensor in self._softmaxes and (op.bias is not None or op.activation):
                raise ModelError(
                    f"operation {op.name!r}: no bias or activation may follow softmax's product"
                )
            polynomial = self._config.gelu == "polynomial"
            if polynomial and op.activation not in (None, "gelu", "gelu_tanh"):
                raise ModelError(
                    f"operation {op.name!r} ends in {op.activation}: the polynomial computes GELU "
                    'only; use gelu = "table"'
                )

    # ------------------------------------------------------------------------------- scales

    def _statistics(self, name: str) -> Statistics:
        data = self._graph.tensors[name].data
        if data is None:
            return self._calibration.tensors[name]
        return Statistics(float(data.min()), float(data.max()), [data.ravel()])

    def _choose_narrow(self) -> None:
        """Scales of int8 tensors but weights, and of what goes into activations."""
        lopsided = self._lopsided()
        scores = {op.source.tensor for op in self._softmaxes.values()}
        for name in sorted(self._narrow - set(self._softmaxes)):
            statistics = self._statistics(name)
            if name in scores:
                scale = scales.symmetric_scale(statistics, 8, "minmax") * SCORES_HEADROOM
                self._scale8[name] = scale, 0
            elif name in lopsided:
                self._scale8[name] = scales.affine_scale(statistics, self._estimator)
            else:
                self._scale8[name] = (
                    scales.symmetric_scale(statistics, 8, self._estimator),
                    0,
                )
        for op in self._gemms:
            if op.activation is not None:
                scale, zero = self._scale8[op.out.tensor]
                self._input_scale[op.name] = scales.activation_input_scale(
                    self._calibration.activations[op.name],
                    ACTIVATIONS[op.activation],
                    scale,
                    zero,
                    self._config.activation_bits,
                )

    def _lopsided(self) -> set[str]:
        """Tensors that may have a zero point: written by activations or the host alone, and met by
        weights alone."""
        writers: dict[str, set[str | None]] = {}
        for op in self._graph.operations:
            view = op.out if isinstance(op, Gemm) else op.target
            kind = op.activation if isinstance(op, Gemm) else None
            writers.setdefault(view.tensor, set()).add(kind)
        names = {name for name, kinds in writers.items() if None not in kinds}
        names |= {t.name for t in self._graph.tensors.values() if t.role == Role.INPUT}
        for op in self._gemms:
            weights = self._weights(op)
            if weights is None or not self._follows(op, weights):
                names -= {op.a.tensor, op.b.tensor}
        return names & self._narrow

    def _choose_wide(self) -> None:
        """One scale for every group of int16 tensors: nothing that calibration saw saturates."""
        top = (1 << (self._config.residual_bits - 1)) - 1
        for root in sorted(set(self._groups.values())):
            members = {name for name, group in self._groups.items() if group == root}
            limit = max(self._statistics(name).limit for name in members)
            for op in self._gemms:
                if op.residual is not None and op.out.tensor in members:
                    limit = max(limit, self._calibration.residuals[op.name].limit)
            output = any(self._graph.tensors[name].role == Role.OUTPUT for name in members)
            headroom = OUTPUT_HEADROOM if output else STREAM_HEADROOM
            scale = scales.positive(limit) * headroom / top
            for norm in self._graph.operations:
                if isinstance(norm, Norm) and norm.source.tensor in members:
                    # The norm takes an epsilon of at most 32 bits, in codes squared.
                    scale = max(scale, norm.source.cols * math.sqrt(norm.epsilon / (2**32 - 2)))
            self._scale16.update(dict.fromkeys(members, scale))

    def _raise_scales(self) -> None:
        """Makes output scales as coarse as records need: a record multiplies by less than 1."""
        for op in self._gemms:
            if op.a.tensor in self._softmaxes:
                largest = LARGEST_RECIPROCAL
                ratio = op.factor * self._scale8[op.b.tensor][0] / self._result_scale(op)
            else:
                largest = LARGEST_SCALE
                ratio = float(np.max(self._accumulator_scales(op))) / self._result_scale(op)
            if ratio > largest:
                self._coarsen(op, ratio / largest)

    def _coarsen(self, op: Gemm, by: float) -> None:
        name = op.out.tensor
        if op.activation is not None:
            self._input_scale[op.name] *= by
        elif name in self._wide:
            group = self._groups[name]
            for member in self._groups:
                if self._groups[member] == group:
                    self._scale16[member] *= by
        else:
            scale, zero = self._scale8[name]
            self._scale8[name] = scale * by, zero

    def _result_scale(self, op: Gemm) -> float:
        """The scale of what the record's multiplication gives."""
        if op.activation is not None:
            return self._input_scale[op.name]
        name = op.out.tensor
        return self._scale16[name] if name in self._wide else self._scale8[name][0]

    def _weights(self, op: Gemm) -> View | None:
        """The operand that holds constant weights, the right one where both are constant."""
        for view in (op.b, op.a):
            if self._graph.tensors[view.tensor].role == Role.CONSTANT:
                return view
        return None

    @staticmethod
    def _follows(op: Gemm, weights: View) -> bool:
        """Whether each weight row can have a scale of its own: the bias goes the same way."""
        return op.bias is None or op.by_row == (weights is op.a)

    def _accumulator_scales(self, op: Gemm) -> np.ndarray:
        """The real value of 1 in the product's sums: one for each weight row, or one for all."""
        weights = self._weights(op)
        if weights is None:
            (left, _), (right, _) = self._scale8[op.a.tensor], self._scale8[op.b.tensor]
            return np.array([op.factor * left * right])
        other = op.a if weights is op.b else op.b
        return op.factor * self._scale8[other.tensor][0] * self._weight_scales(op, weights, other)

    def _weight_scales(self, op: Gemm, weights: View, other: View) -> np.ndarray:
        """The scale of each weight row: its largest weight is 127, unless the row is so small that
        its record or its bias would not fit. All rows share one where the bias goes by column."""
        unit = op.factor * self._scale8[other.tensor][0]
        result = np.abs(self._block(weights)).max(axis=1) / 127
        least = LEAST_SCALE * self._result_scale(op) / unit
        if not self._follows(op, weights):
            result = np.full(len(result), result.max())
        if op.bias is not None:
            limit = np.abs(op.bias) / (unit * BIAS_LIMIT)
            result = np.maximum(result, limit if self._follows(op, weights) else limit.max())
        return np.maximum(result, least)

    def _block(self, view: View) -> np.ndarray:
        data = self._graph.tensors[view.tensor].data
        assert data is not None
        return data[view.row : view.row + view.rows, view.col : view.col + view.cols]

    # ------------------------------------------------------------------------------ tensors

    def _declare(self, tensor: Tensor) -> None:
        """The integer tensor or tensors of a float tensor; weights come with their operation."""
        name = tensor.name
        q = QTensor(name, tensor.rows, tensor.cols, tensor.role, tensor.segment, "int8")
        if name in self._softmaxes:
            self._tensors[name] = q
            records = f"{name}/records"
            self._tensors[records] = QTensor(records, tensor.rows, 1, Role.VALUE, 1, "record")
            return
        if name in self._narrow and not self._is_weight(name):
            scale, zero = self._scale8[name]
            role = q.role if name not in self._wide or q.role != Role.OUTPUT else Role.VALUE
            data = None if tensor.data is None else self._codes(tensor.data, scale, zero, 8)
            label = self._narrow_name(name)
            self._tensors[label] = replace(
                q, name=label, role=role, scale=scale, zero=zero, codes=data
            )
        if name in self._wide:
            scale = self._scale16[name]
            bits = self._config.residual_bits
            data = None if tensor.data is None else self._codes(tensor.data, scale, 0, bits)
            label = self._wide_name(name)
            self._tensors[label] = replace(q, name=label, kind="int16", scale=scale, codes=data)

    @staticmethod
    def _codes(data: np.ndarray, scale: float, zero: int, bits: int) -> np.ndarray:
        return codes.encode(data, scale, zero, bits).astype(np.int8 if bits == 8 else np.int16)

    def _is_weight(self, name: str) -> bool:
        return any(view.tensor == name for op in self._gemms if (view := self._weights(op)))

    def _narrow_name(self, name: str) -> str:
        both = name in self._narrow and name in self._wide
        output = self._graph.tensors[name].role == Role.OUTPUT
        return f"{name}/int8" if both and output else name

    def _wide_name(self, name: str) -> str:
        both = name in self._narrow and name in self._wide
        output = self._graph.tensors[name].role == Role.OUTPUT
        return f"{name}/int16" if both and not output else name

    def _narrow_view(self, view: View) -> View:
        return replace(view, tensor=self._narrow_name(view.tensor))

    def _wide_view(self, view: View) -> View:
        return replace(view, tensor=self._wide_name(view.tensor))

    # --------------------------------------------------------------------------- operations

    def _gemm(self, op: Gemm) -> QGemm:
        out = (self._wide_view if op.out.tensor in self._wide else self._narrow_view)(op.out)
        residual = None if op.residual is None else self._wide_view(op.residual)
        a, b = self._narrow_view(op.a), self._narrow_view(op.b)
        if op.a.tensor in self._softmaxes:
            return QGemm(op.name, a, b, out, f"{op.a.tensor}/records", True, None, residual)
        weights = self._weights(op)
        sums = self._accumulator_scales(op)
        by_row = op.by_row
        offsets = np.zeros(1)
        if weights is not None:
            q = self._weight_codes(op, weights, sums)
            if self._follows(op, weights):
                by_row = weights is op.a
                other = op.b if by_row else op.a
                offsets = -self._scale8[other.tensor][1] * q.sum(axis=1, dtype=np.int64)
            else:
                sums = sums[:1]
        count = op.a.rows if by_row else op.b.rows
        sums = np.broadcast_to(sums, count)
        bias = np.broadcast_to(offsets, count)
        if op.bias is not None:
            bias = bias + np.rint(op.bias / sums).astype(np.int64)
        limit = 2**31 - 1 - op.a.cols * 127 * 128
        ratios = sums / self._result_scale(op)
        records = _records(op.name, np.clip(bias, -limit, limit), ratios)
        return QGemm(op.name, a, b, out, records, by_row, self._activation(op), residual)

    def _weight_codes(self, op: Gemm, weights: View, sums: np.ndarray) -> np.ndarray:
        """Writes the weight tensor of an operation and returns its codes."""
        tensor = self._graph.tensors[weights.tensor]
        if (weights.rows, weights.cols) != (tensor.rows, tensor.cols):
            raise ModelError(f"operation {op.name!r}: its weights are a part of a constant")
        other = op.a if weights is op.b else op.b
        row_scales = sums / (op.factor * self._scale8[other.tensor][0])
        data = np.clip(np.rint(self._block(weights) / row_scales[:, None]), -127, 127)
        result = data.astype(np.int8)
        self._tensors[tensor.name] = QTensor(
            tensor.name,
            tensor.rows,
            tensor.cols,
            tensor.role,
            tensor.segment,
            "int8",
            codes=result,
        )
        return result

    def _activation(self, op: Gemm) -> np.ndarray | None:
        if op.activation is None:
            return None
        scale, zero = self._scale8[op.out.tensor]
        s = self._input_scale[op.name]
        if self._config.gelu == "table":
            function = ACTIVATIONS[op.activation]
            return scales.activation_table(function, s, scale, zero, self._config.activation_bits)
        bound = math.floor(1.769 * math.sqrt(2) / s)
        one = math.floor(2 / (0.2888 * s * s))
        if bound >= 1 << 12 or one >= 1 << 20:
            raise ModelError(f"operation {op.name!r}: its scale is too fine for the polynomial")
        try:
            multiplier, selector = arithmetic.encode_scale(s / (2 * one * scale))
        except (ValueError, ZeroDivisionError):
            raise ModelError(
                f"operation {op.name!r}: its scale is too coarse for the polynomial"
            ) from None
        return arithmetic.pack_polynomial(bound, one, multiplier, selector, zero)

    def _softmax(self, op: Softmax) -> QSoftmax:
        """The records carry the scale of the product that follows: of V over that of its result."""
        followers = [g for g in self._gemms if g.a.tensor == op.target.tensor]
        ratios = {g.factor * self._scale8[g.b.tensor][0] / self._result_scale(g) for g in followers}
        if len(ratios) != 1:
            raise ModelError(f"operation {op.name!r}: exactly one product must read its result")
        numerator = round(2.0**28 * ratios.pop())
        if not 0 < numerator < 1 << 32:
            raise ModelError(f"operation {op.name!r}: its record scale does not fit 32 bits")
        scale, _ = self._scale8[op.source.tensor]
        records = f"{op.target.tensor}/records"
        table = scales.exp_table(scale)
        source, target = self._narrow_view(op.source), self._narrow_view(op.target)
        return QSoftmax(op.name, source, target, records, table, numerator, op.source.cols)

    def _norm(self, op: Norm) -> QNorm:
        channels = op.source.cols
        epsilon = round(channels**2 * op.epsilon / self._scale16[op.source.tensor] ** 2)
        name = op.target.tensor
        int8 = int16 = None
        if name in self._narrow:
            scale, zero = self._scale8[name]
            int8 = self._gain(op, self._narrow_view(op.target), scale, zero)
        if name in self._wide:
            int16 = self._gain(op, self._wide_view(op.target), self._scale16[name], 0)
        source = self._wide_view(op.source)
        return QNorm(op.name, source, min(epsilon, 2**32 - 1), int8, int16)

    @staticmethod
    def _gain(op: Norm, target: View, scale: float, zero: int) -> Gain:
        """Gains with the most significant bits that leave gains and biases their widths."""
        for shift in reversed(arithmetic.NORM_SHIFTS):
            gains = np.rint(op.gain / scale * 2.0 ** (shift - arithmetic.NORM_FRACTION))
            biases = np.rint((op.bias / scale + zero) * 2.0**shift)
            if np.abs(gains).max() <= 32767 and np.abs(biases).max() < 2**30:
                return Gain(target, gains.astype(np.int16), biases.astype(np.int32), shift)
        raise ModelError(f"operation {op.name!r}: its gains are too large for their result's scale")


def _records(name: str, bias: np.ndarray, ratios: np.ndarray) -> Records:
    try:
        pairs = np.array([arithmetic.encode_scale(float(ratio)) for ratio in ratios], np.int32)
    except ValueError as error:
        raise ModelError(f"operation {name!r}: {error}") from None
    return Records(bias.astype(np.int32), pairs[:, 0], pairs[:, 1])
