"""Real Hugging Face architectures, as exporters write them, compute what onnxruntime computes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gateformer.compiler.float_execution import run_float
from gateformer.compiler.graph import Gemm, Graph, Norm, Role, Softmax
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.examples.families.families import FAMILIES, Family
from gateformer.spec.errors import ModelError

TOLERANCE = 1e-4
"""Of the largest output."""
BY_NAME = {family.name: family for family in FAMILIES}
ACTIVATIONS = {"gelu_new": "gelu_tanh"}
"""Our names, where transformers has others."""
ENDS = {
    # The masked mean and the division by its length.
    "minilm": {"Mul", "ReduceSum", "Div", "ReduceL2", "Clip", "Expand"},
    # The mean of what the class token and the distillation token say.
    "deit": {"Div"},
}
"""Operators that run on the host behind the accelerator."""


def graph_of(family: Family) -> Graph:
    return lower(import_model(family.path, dict(family.shapes)))


def expected(family: Family, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(family.path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    return output


def run(graph: Graph, inputs: dict[str, np.ndarray], length: int | None = None) -> np.ndarray:
    before = HostRunner(graph.host.before).run(inputs)
    tensors = run_float(graph, before, length=length)
    outputs = {n: tensors[n] for n, t in graph.tensors.items() if t.role is Role.OUTPUT}
    (output,) = HostRunner(graph.host.after).run({**inputs, **outputs}).values()
    return output


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_equals_onnxruntime(family: Family) -> None:
    graph = graph_of(family)
    for sample in range(2):
        inputs = {name: array[sample] for name, array in family.inputs(2, seed=5).items()}
        reference = expected(family, inputs)
        assert np.abs(run(graph, inputs) - reference).max() < TOLERANCE * np.abs(reference).max()


@pytest.mark.parametrize("which", [1, "one less", "half"])
@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.masks])
def test_shorter_inputs_equal_onnxruntime(name: str, which: int | str) -> None:
    """A mask is a length; outputs of tokens beyond it have no meaning."""
    family = BY_NAME[name]
    lengths: dict[int | str, int] = {"one less": family.tokens - 1, "half": family.tokens // 2}
    length = lengths.get(which, 1)
    graph = graph_of(family)
    assert graph.tokens == family.tokens
    inputs = {key: array[0] for key, array in family.inputs(1, 6, length).items()}
    before = HostRunner(graph.host.before).run(inputs)
    for mask in graph.masks:
        values = before[mask]
        counts = values if values.dtype == bool else values == 0
        prefix = np.broadcast_to(np.arange(family.tokens) < length, counts.shape)
        assert np.array_equal(counts, prefix)
    reference, output = expected(family, inputs), run(graph, inputs, length)
    if reference.ndim == 3:
        reference, output = reference[:, :length], output[:, :length]
    assert np.abs(output - reference).max() < TOLERANCE * np.abs(reference).max()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_runs_where(family: Family) -> None:
    """All products, norms of layers and softmaxes run on the accelerator, as the registry says."""
    graph = graph_of(family)
    assert bool(graph.masks) == bool(family.masks)
    softmaxes = [op for op in graph.operations if isinstance(op, Softmax)]
    assert len(softmaxes) == family.layers * family.heads
    assert {op.source.cols for op in softmaxes} == {family.tokens}
    gemms = [op for op in graph.operations if isinstance(op, Gemm)]
    hidden = {op.activation for op in gemms if op.out.cols == family.feed_forward}
    assert hidden == {ACTIVATIONS.get(family.activation, family.activation)}
    softmaxed = {op.target.tensor for op in softmaxes}
    heads = {op.b.rows for op in gemms if op.a.tensor in softmaxed}
    assert heads == {family.head_size}
    norms = [op for op in graph.operations if isinstance(op, Norm)]
    assert len(norms) >= 2 * family.layers
    assert {op.source.cols for op in norms} == {family.hidden}
    late = [op for op in graph.host.operations if "before the first product" not in op.reason]
    late = [op for op in late if op.operator != "Conv"]
    assert {op.operator for op in late} == ENDS.get(family.name, set())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_files_are_what_the_registry_says(family: Family) -> None:
    model = onnx.load(family.path)
    onnx.checker.check_model(model, full_check=True)
    assert {item.domain: item.version for item in model.opset_import}[""] == family.opset
    assert [value.name for value in model.graph.input] == list(family.shapes)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param == "batch_size") == (family.exporter == "optimum")


def test_the_families_cover_the_range() -> None:
    assert {family.opset for family in FAMILIES} >= {13, 14, 17, 18, 20, 21}
    assert {family.tokens for family in FAMILIES} >= {1, 7, 37, 128, 197}
    assert {family.hidden for family in FAMILIES} >= {72, 100}
    assert {family.heads for family in FAMILIES} >= {1, 12}
    assert {family.head_size for family in FAMILIES} >= {16, 64}
    assert sum(family.path.stat().st_size for family in FAMILIES) < 2_500_000


@pytest.mark.parametrize("name", ["bert", "vit", "post-norm"])
def test_node_in_the_middle(name: str, tmp_path: Path) -> None:
    """A layer with another function than any table is known for is refused by that node's name."""
    family = BY_NAME[name]
    model = onnx.load(family.path)
    node = next(node for node in model.graph.node if node.op_type in ("Gelu", "Erf", "Relu"))
    node.op_type = "Sin"
    del node.attribute[:]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=rf"^node '{node.name}' \(operator 'Sin'\): no engine"):
        lower(import_model(path, dict(family.shapes)))
