"""Quality reports: of a compiled folder, of a spoiled layer, and the numbers' own meaning."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateformer.cli.main import main
from gateformer.compiler.calibration import calibrate
from gateformer.compiler.compile import compile
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.graph import Gemm, Graph
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import quantize_calibrated
from gateformer.compiler.quantized import QGemm, QuantizedGraph
from gateformer.compiler.quantized_file import dump_quantized, load_quantized
from gateformer.compiler.samples import split_samples
from gateformer.examples.digits.demo import CALIBRATION, MODEL
from gateformer.sim.quality import Comparison, Quality, measure, measure_model
from gateformer.spec.configs import ECP5_85K
from gateformer.spec.errors import GateformerError, ImageError

with np.load(CALIBRATION) as file:
    IMAGES = dict(file)
SAMPLES = split_samples(IMAGES)[:3]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled digits, moved after they were compiled."""
    folder = tmp_path_factory.mktemp("quality")
    compiled = compile(MODEL, CALIBRATION, ECP5_85K)
    assert compiled is not None
    compiled.save(folder / "before")
    return Path(shutil.move(folder / "before", folder / "after"))


@pytest.fixture(name="float_graph", scope="module")
def _float_graph() -> Graph:
    return lower(import_model(MODEL))


@pytest.fixture(name="integers", scope="module")
def _integers(float_graph: Graph) -> QuantizedGraph:
    return quantize_calibrated(float_graph, ECP5_85K, calibrate(float_graph, IMAGES))


def test_comparison() -> None:
    one = Comparison()
    one.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert one.decibels == pytest.approx(20.0)
    assert one.cosine == pytest.approx((9 + 18) / 5 / np.hypot(3, 4.5))
    assert Comparison().decibels == 150 and Comparison().cosine == 1


def test_a_folder(folder: Path) -> None:
    model = CompiledModel.load(folder)
    quality = measure_model(model, SAMPLES)
    assert quality.samples == len(SAMPLES)
    (logits,) = quality.outputs
    assert logits.name == "logits" and len(logits.cosines) == len(SAMPLES)
    assert logits.snr > 35 and min(logits.cosines) > 0.999
    assert len(quality.layers) > 30
    for layer in quality.layers:
        assert layer.own_snr > 25 and layer.snr > 25 and layer.cosine > 0.998, layer
        assert 0 <= layer.saturated <= 0.01 * layer.values
    first = quality.layers[0]  # all its noise is its own, and that of the input's codes
    assert abs(first.snr - first.own_snr) < 3


def spoiled(graph: QuantizedGraph, name: str) -> QuantizedGraph:
    """The graph with one product's scales halved: half its result is noise."""
    operations = tuple(
        replace(op, records=replace(op.records, multiplier=op.records.multiplier // 2))
        if isinstance(op, QGemm) and op.name == name and not isinstance(op.records, str)
        else op
        for op in graph.operations
    )
    return replace(graph, operations=operations)


def quality_of(graph: Graph, integers: QuantizedGraph) -> Quality:
    exact = {"logits": np.ones((1, 10))}
    return measure(graph, integers, ECP5_85K, SAMPLES, lambda _: exact)


def test_the_guilty_layer_is_named(float_graph: Graph, integers: QuantizedGraph) -> None:
    guilty = next(op for op in float_graph.operations if isinstance(op, Gemm) and op.activation)
    quality = quality_of(float_graph, spoiled(integers, guilty.name))
    worst, second = quality.costly(2)
    assert worst.name == guilty.name and worst.own_snr < 15
    assert second.own_snr > 25  # others only hand the noise on
    after = next(i for i, layer in enumerate(quality.layers) if layer.name == guilty.name) + 1
    assert quality.layers[after].snr < 25 < quality.layers[after].own_snr


def test_saturation_is_counted(float_graph: Graph, integers: QuantizedGraph) -> None:
    """A tensor whose step is a sixteenth cannot hold its largest values."""
    name = next(op.out.tensor for op in integers.operations[3:] if isinstance(op, QGemm))
    tensor = integers.tensors[name]
    assert tensor.scale is not None
    tensors = {**integers.tensors, name: replace(tensor, scale=tensor.scale / 16)}
    operations = tuple(
        replace(op, records=replace(op.records, selector=op.records.selector - 1))
        if isinstance(op, QGemm) and op.out.tensor == name and not isinstance(op.records, str)
        else op
        for op in integers.operations
    )
    before = quality_of(float_graph, integers)
    after = quality_of(float_graph, replace(integers, tensors=tensors, operations=operations))
    index = [layer.name for layer in before.layers].index(name)
    assert after.layers[index].saturated > before.layers[index].saturated + 5


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", **{name: array[:2] for name, array in IMAGES.items()})
    command = ["quality", str(folder), "--input", str(tmp_path / "in.npz")]
    out = tmp_path / "report"
    assert main([*command, "--out", str(out), "--json", str(tmp_path / "q.json")]) == 0
    assert "logits" in capsys.readouterr().out
    report = json.loads((out / "quality.json").read_text())
    assert report == json.loads((tmp_path / "q.json").read_text())
    assert report["samples"] == 2 and report["outputs"][0]["cosine_min"] > 0.999
    assert {"name", "kind", "form", "snr", "cosine", "own_snr", "saturated", "values"} == set(
        report["layers"][0]
    )
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--out", str(tmp_path / "in.npz")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err


def test_a_folder_without_its_source(folder: Path, tmp_path: Path) -> None:
    poor = tmp_path / "poor"
    shutil.copytree(folder, poor)
    shutil.rmtree(poor / "source")
    with pytest.raises(GateformerError, match="compile it again"):
        measure_model(CompiledModel.load(poor), SAMPLES)
    (poor / "quantized.npz").write_bytes(b"PK")
    with pytest.raises(ImageError, match=r"quantized\.npz"):
        CompiledModel.load(poor)


def test_integer_graph_as_file(integers: QuantizedGraph) -> None:
    content = dump_quantized(integers)
    again = load_quantized(content, source="here")
    assert again == integers and dump_quantized(again) == content
    for one, two in zip(again.tensors.values(), integers.tensors.values(), strict=True):
        assert np.array_equal(one.codes, two.codes) if two.codes is not None else one.codes is None
        assert (one.channels is None) == (two.channels is None)
    for damaged in (content[:1000], b"", content[:-3000] + bytes(3000)):
        with pytest.raises(ImageError, match="here"):
            load_quantized(damaged, source="here")
