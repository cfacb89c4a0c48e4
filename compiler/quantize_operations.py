"""The integer tensors and operations of a float graph whose scales are chosen."""

import math
from dataclasses import replace

import numpy as np

from gateformer.compiler import codes, scales
from gateformer.compiler.activations import ACTIVATIONS
from gateformer.compiler.graph import Copy, Gemm, Norm, Operation, Role, Softmax, Tensor, View
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantize_scales import Scales
from gateformer.compiler.quantized import (
    Gain,
    QCopy,
    QGemm,
    QNorm,
    QOperation,
    QSoftmax,
    QTensor,
    Records,
)
from gateformer.spec import arithmetic
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ModelError


class Builder:
    """Makes integer tensors (`tensors`) and operations out of float ones, one by one."""

    def __init__(self, form: IntegerForm, scales: Scales, config: AcceleratorConfig) -> None:
        self.tensors: dict[str, QTensor] = {}
        self._form = form
        self._graph = form.graph
        self._scales = scales
        self._config = config
        self._weights = {view.tensor for op in form.gemms if (view := form.weights(op))}

    # ------------------------------------------------------------------------------ tensors

    def declare(self, tensor: Tensor) -> None:
        """The integer tensor or tensors of a float tensor; weights come with their operation."""
        name, form = tensor.name, self._form
        q = QTensor(
            name,
            tensor.rows,
            tensor.cols,
            tensor.role,
            tensor.segment,
            "int8",
            row_token=tensor.row_token,
            col_tokens=tensor.col_tokens,
        )
        if name in form.softmaxes:
            self._add(q)
            records = replace(
                q, name=f"{name}/records", role=Role.VALUE, cols=1, segment=1, kind="record"
            )
            self._add(replace(records, col_tokens=False))
            return
        if name in form.narrow and name not in self._weights:
            scale, zero = self._scales.narrow[name]
            role = q.role if name not in form.wide or q.role != Role.OUTPUT else Role.VALUE
            data = None if tensor.data is None else self._codes(tensor.data, scale, zero, 8)
            label = form.narrow_name(name)
            channels = self._scales.channels.get(name)
            narrow = replace(q, name=label, role=role, scale=scale, zero=zero, codes=data)
            self._add(replace(narrow, channels=channels))
        if name in form.wide:
            scale = self._scales.wide[name]
            bits = self._config.residual_bits
            data = None if tensor.data is None else self._codes(tensor.data, scale, 0, bits)
            label = form.wide_name(name)
            self._add(replace(q, name=label, kind="int16", scale=scale, codes=data))

    def _add(self, tensor: QTensor) -> None:
        self.tensors[tensor.name] = tensor

    @staticmethod
    def _codes(data: np.ndarray, scale: float, zero: int, bits: int) -> np.ndarray:
        return codes.encode(data, scale, zero, bits).astype(np.int8 if bits == 8 else np.int16)

    # --------------------------------------------------------------------------- operations

    def operation(self, op: Operation) -> QOperation:
        """Raises ModelError naming an operation whose numbers do not fit the hardware."""
        match op:
            case Gemm():
                return self._gemm(op)
            case Softmax():
                return self._softmax(op)
            case Norm():
                return self._norm(op)
            case Copy():
                source, target = self._form.wide_view(op.source), self._form.wide_view(op.target)
                return QCopy(op.name, source, target)

    def _gemm(self, op: Gemm) -> QGemm:
        form = self._form
        out = (form.wide_view if op.out.tensor in form.wide else form.narrow_view)(op.out)
        residual = None if op.residual is None else form.wide_view(op.residual)
        a, b = form.narrow_view(op.a), form.narrow_view(op.b)
        if op.a.tensor in form.softmaxes:
            return QGemm(op.name, a, b, out, f"{op.a.tensor}/records", True, None, residual)
        weights = form.weights(op)
        sums = self._scales.accumulators(op)
        by_row, bias = op.by_row, op.bias
        offsets = np.zeros(1)
        if weights is not None:
            q = self._weight_codes(op, weights)
            bias = self._scales.bias(op)
            if form.follows(op):
                by_row = weights is op.a
                zero = self._scales.narrow[form.other(op).tensor][1]
                offsets = -zero * q.sum(axis=1, dtype=np.int64)
            else:
                sums = sums[:1]
        count = op.a.rows if by_row else op.b.rows
        sums = np.broadcast_to(sums, count)
        biases = np.broadcast_to(offsets, count)
        if bias is not None:
            biases = biases + np.rint(bias / sums).astype(np.int64)
        zero = (
            0
            if op.activation or op.out.tensor in form.wide
            else self._scales.narrow[op.out.tensor][1]
        )
        if zero:
            biases = biases + np.rint(zero * self._scales.result(op) / sums).astype(np.int64)
        limit = 2**31 - 1 - op.a.cols * 128 * 128
        ratios = sums / self._scales.result(op)
        records = _records(op.name, np.clip(biases, -limit, limit), ratios)
        return QGemm(op.name, a, b, out, records, by_row, self._activation(op), residual)

    def _weight_codes(self, op: Gemm, weights: View) -> np.ndarray:
        """Writes the weight tensor of an operation and returns its codes."""
        tensor = self._graph.tensors[weights.tensor]
        if (weights.rows, weights.cols) != (tensor.rows, tensor.cols):
            raise ModelError(f"operation {op.name!r}: its weights are a part of a constant")
        rows = self._scales.weight_rows(op)
        least = -128 if op.name in self._scales.grids.rows else -127
        data = np.clip(np.rint(self._scales.block(op) / rows[:, None]), least, 127)
        result = data.astype(np.int8)
        self._add(
            QTensor(
                tensor.name,
                tensor.rows,
                tensor.cols,
                tensor.role,
                tensor.segment,
                "int8",
                codes=result,
            )
        )
        return result

    def _activation(self, op: Gemm) -> np.ndarray | None:
        if op.activation is None:
            return None
        scale, zero = self._scales.narrow[op.out.tensor]
        s = self._scales.activation[op.name]
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
        followers = [g for g in self._form.gemms if g.a.tensor == op.target.tensor]
        ratios = {self._scales.reciprocal(follower) for follower in followers}
        if len(ratios) != 1:
            raise ModelError(f"operation {op.name!r}: exactly one product must read its result")
        numerator = round(2.0**28 * ratios.pop())
        if not 0 < numerator < 1 << 32:
            raise ModelError(f"operation {op.name!r}: its record scale does not fit 32 bits")
        scale, _ = self._scales.narrow[op.source.tensor]
        records = f"{op.target.tensor}/records"
        table = scales.exp_table(scale)
        source, target = self._form.narrow_view(op.source), self._form.narrow_view(op.target)
        return QSoftmax(op.name, source, target, records, table, numerator, op.source.cols)

    def _norm(self, op: Norm) -> QNorm:
        form, name = self._form, op.target.tensor
        epsilon = round(op.source.cols**2 * op.epsilon / self._scales.wide[op.source.tensor] ** 2)
        int8 = int16 = None
        if name in form.narrow:
            scale, zero = self._scales.narrow[name]
            gain, bias = op.gain / scale, op.bias / scale
            if name in self._scales.channels:
                channels = self._scales.channels[name]
                gain = gain / channels.factors
                bias = (bias - channels.offsets / scale) / channels.factors
            int8 = _gain(op, form.narrow_view(op.target), gain, bias + zero)
        if name in form.wide:
            scale = self._scales.wide[name]
            int16 = _gain(op, form.wide_view(op.target), op.gain / scale, op.bias / scale)
        return QNorm(op.name, form.wide_view(op.source), min(epsilon, 2**32 - 1), int8, int16)


def _gain(op: Norm, target: View, gain: np.ndarray, bias: np.ndarray) -> Gain:
    """Gains and biases in codes, with the most significant bits that leave them their widths."""
    for shift in reversed(arithmetic.NORM_SHIFTS):
        gains = np.rint(gain * 2.0 ** (shift - arithmetic.NORM_FRACTION))
        biases = np.rint(bias * 2.0**shift)
        if np.abs(gains).max() <= 32767 and np.abs(biases).max() < 2**30:
            return Gain(target, gains.astype(np.int16), biases.astype(np.int32), shift)
    raise ModelError(f"operation {op.name!r}: its gains are too large for their result's scale")


def _records(name: str, bias: np.ndarray, ratios: np.ndarray) -> Records:
    try:
        pairs = np.array([arithmetic.encode_scale(float(ratio)) for ratio in ratios], np.int32)
    except ValueError as error:
        raise ModelError(f"operation {name!r}: {error}") from None
    return Records(bias.astype(np.int32), pairs[:, 0], pairs[:, 1])
