"""The integer graph of a batch computes what the graph of one sample computes for each."""

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.batching import batch
from gateformer.compiler.graph import Role
from gateformer.compiler.quantized import QGemm
from gateformer.sim.golden_graph import run_quantized
from gateformer.spec.configs import ECP5_85K, SMALL
from gateformer.spec.errors import ConfigError


def random_inputs(graph, rng):
    return {
        t.name: rng.integers(-128, 128, (t.rows, t.cols)).astype(np.int8)
        for t in graph.tensors.values()
        if t.role is Role.INPUT
    }


@pytest.mark.parametrize("tokens", [16, 13], ids=["whole words", "padded"])
@pytest.mark.parametrize("samples", [2, 4])
def test_a_batch_equals_its_samples(samples, tokens):
    rng = np.random.default_rng(samples)
    single = integer_graphs.encoder(SMALL, tokens, 24, 2, 12, 40, layers=2, seed=tokens)
    inputs = [random_inputs(single, rng) for _ in range(samples)]
    expected = [run_quantized(single, one, SMALL)["logits"] for one in inputs]
    together = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
    for in_turn in (False, True):
        graph = batch(single, samples, SMALL, in_turn=in_turn)
        assert graph.macs == samples * single.macs
        result = run_quantized(graph, together, SMALL)["logits"]
        assert np.array_equal(result, np.concatenate(expected))


def test_weights_are_read_once():
    """Products with weights over whole sequences are not repeated, those of one row are."""
    single = integer_graphs.encoder(ECP5_85K, 16, 24, 2, 12, 40)
    graph = batch(single, 8, ECP5_85K)
    names = [op.name for op in graph.operations if isinstance(op, QGemm)]
    for name in ("b0.q", "b0.k", "b0.v", "b0.out", "b0.up", "b0.down"):
        assert names.count(name) == 1
    assert sum(name.startswith("b0.h0.scores@") for name in names) == 8
    assert sum(name.startswith("classify") for name in names) == 1
    assert graph.macs == 8 * single.macs


def test_samples_in_turn():
    """All of one before the next one, but for the classifier on one row of each."""
    single = integer_graphs.encoder(ECP5_85K, 16, 24, 2, 12, 40, layers=2)
    graph = batch(single, 3, ECP5_85K, in_turn=True)
    names = [op.name for op in graph.operations]
    order = [op.name for op in single.operations]
    body = order[: order.index("classify")]
    assert names == [f"{name}@{sample}" for sample in range(3) for name in body] + ["classify"]
    (last,) = (op for op in graph.operations if op.name == "classify")
    assert isinstance(last, QGemm)
    assert (last.a.rows, last.out.rows) == (3, 3)


def test_rows_of_many_tiles_do_not_wait_for_the_last_sample():
    single = integer_graphs.post_norm(ECP5_85K, 16, 24, 2, 12, 40)
    graph = batch(single, 2, ECP5_85K, in_turn=True)
    assert all(op.name.endswith(("@0", "@1")) for op in graph.operations)


def test_a_batch_of_one_is_the_graph_itself():
    single = integer_graphs.encoder(SMALL, 9, 16, 2, 8, 24)
    assert batch(single, 1, SMALL) is single


@pytest.mark.parametrize("samples", [0, 5])
def test_a_batch_beyond_the_config_is_refused(samples):
    single = integer_graphs.encoder(SMALL, 9, 16, 2, 8, 24)
    with pytest.raises(ConfigError, match=f"a batch of {samples} does not fit config 'small'"):
        batch(single, samples, SMALL)
