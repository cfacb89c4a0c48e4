"""Channel maps: exact in real numbers, even ranges, and only where every reader can take them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateformer.compiler.calibration import Calibration, calibrate
from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.float_execution import run_float
from gateformer.compiler.graph import Graph, Norm, Role
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import QuantizationOptions, quantize
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantized import QNorm
from gateformer.compiler.smoothing import LEAST_COUNT, smooth
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import ECP5_85K

IMAGES = np.random.default_rng(4).normal(0, 1, (32, 1, 2, 6, 6)).astype(np.float32)


@pytest.fixture(name="graph")
def _graph(transformer: Callable[..., Path]) -> Graph:
    """A post-norm model whose norms have channels of very different size and of one sign."""
    graph = lower(import_model(transformer(order="post", head="tokens", layers=1)))
    random = np.random.default_rng(9)
    operations = tuple(
        replace(op, gain=op.gain * 4.0 ** random.normal(0, 1, 24), bias=random.normal(0, 3, 24))
        if isinstance(op, Norm)
        else op
        for op in graph.operations
    )
    return replace(graph, operations=operations)


@pytest.fixture(name="calibration")
def _calibration(graph: Graph) -> Calibration:
    return calibrate(graph, {"image": IMAGES})


def test_only_norms_that_meet_weights(graph: Graph, calibration: Calibration) -> None:
    maps = smooth(IntegerForm(graph), calibration, 0.5, True)
    norms = {op.target.tensor for op in graph.operations if isinstance(op, Norm)}
    outputs = {t.name for t in graph.tensors.values() if t.role == Role.OUTPUT}
    assert set(maps) == norms - outputs


def test_channels_seen_too_rarely_stay_as_they_are(graph: Graph) -> None:
    few = calibrate(graph, {"image": IMAGES[: LEAST_COUNT // 10]})
    assert not smooth(IntegerForm(graph), few, 0.5, True)


def test_a_product_of_two_activations_forbids_it(graph: Graph, calibration: Calibration) -> None:
    form = IntegerForm(graph)
    name = next(iter(smooth(form, calibration, 0.5, True)))
    reader = next(op for op in form.gemms if op.a.tensor == name)
    against = replace(reader, name="against", b=reader.a, bias=None)
    more = replace(graph, operations=(*graph.operations, against))
    assert name not in smooth(IntegerForm(more), calibration, 0.5, True)


def test_ranges(graph: Graph, calibration: Calibration) -> None:
    """With alpha 1 all channels have one range; with 0 all columns of the weights; both around 0
    after centering."""
    form = IntegerForm(graph)
    for name, channels in smooth(form, calibration, 1.0, True).items():
        mapped = calibration.tensors[name].mapped(channels.factors, channels.offsets)
        assert np.allclose(mapped.highs, mapped.highs[0]) and np.allclose(
            mapped.lows, -mapped.highs
        )
    for name, channels in smooth(form, calibration, 0.0, False).items():
        readers = [op for op in form.gemms if form.weights(op) and form.other(op).tensor == name]
        blocks = [np.abs(form.block(op) * channels.factors).max(axis=0) for op in readers]
        largest = np.max(blocks, axis=0)
        assert np.allclose(largest, largest[0]) and not channels.offsets.any()


def test_channels_of_zeros(graph: Graph, calibration: Calibration) -> None:
    def dead(op: object) -> object:
        if isinstance(op, Norm):
            gain, bias = op.gain.copy(), op.bias.copy()
            gain[3] = bias[3] = 0
            return replace(op, gain=gain, bias=bias)
        return op

    zeros = replace(graph, operations=tuple(dead(op) for op in graph.operations))
    for channels in smooth(
        IntegerForm(zeros), calibrate(zeros, {"image": IMAGES}), 0.5, True
    ).values():
        assert np.isfinite(channels.factors).all() and (channels.factors > 0).all()
    quantize(zeros, ECP5_85K, {"image": IMAGES})


def noise(graph: Graph, options: QuantizationOptions) -> float:
    """Mean square error of the outputs, relative."""
    quantized = quantize(graph, ECP5_85K, {"image": IMAGES}, options)
    host = HostRunner(graph.host.before)
    error = signal = 0.0
    for image in IMAGES:
        inputs = host.run({"image": image})
        exact = run_float(graph, inputs)
        feeds = {name: quantize_input(quantized.tensors[name], x) for name, x in inputs.items()}
        codes = run_quantized(quantized, feeds, ECP5_85K)
        for tensor in quantized.tensors.values():
            if tensor.role == Role.OUTPUT:
                got = dequantize(tensor, codes[tensor.name])
                error += float(np.square(got - exact[tensor.name]).sum())
                signal += float(np.square(exact[tensor.name]).sum())
    return error / signal


def test_less_noise(graph: Graph) -> None:
    plain = noise(graph, QuantizationOptions(smoothing=None, centering=False))
    centered = noise(graph, QuantizationOptions(smoothing=None))
    both = noise(graph, QuantizationOptions())
    assert centered < 0.9 * plain and both < 0.5 * plain


def test_stream_stays(graph: Graph) -> None:
    """The int16 output of a norm keeps gains that are the model's own."""
    plain = quantize(graph, ECP5_85K, {"image": IMAGES}, QuantizationOptions(smoothing=None))
    smoothed = quantize(graph, ECP5_85K, {"image": IMAGES})
    pairs = [
        (one, two)
        for one, two in zip(plain.operations, smoothed.operations, strict=True)
        if isinstance(one, QNorm) and isinstance(two, QNorm)
    ]
    assert pairs
    for one, two in pairs:
        if one.int16 is not None and two.int16 is not None:
            assert np.array_equal(one.int16.gains, two.int16.gains)
            assert np.array_equal(one.int16.biases, two.int16.biases)
