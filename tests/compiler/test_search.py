"""The choice among strategies."""

import integer_graphs
import pytest

from gateformer.compiler import search
from gateformer.compiler.batching import batch
from gateformer.compiler.search import fastest
from gateformer.spec.configs import ECP5_85K, SMALL
from gateformer.spec.errors import CapacityError

TIGHT = SMALL.replace(local_kib=16)


def encoder(config, layers):
    return integer_graphs.post_norm(config, 50, 64, 2, 32, 128, layers, seed=3)


def test_no_strategy_is_faster():
    graph = encoder(TIGHT, 1)
    best = fastest(graph, TIGHT)
    found = search._Search(graph, TIGHT).run()
    assert best.cycles == min(one.cycles for one in found)
    assert len({one.strategy for one in found}) == len(found) > 3
    places = {
        (s.cuts, s.late, s.eager, frozenset(one.plan.residency.rows.items()))
        for one in found
        for s in [one.strategy]
    }
    assert len(places) == len(found), "what was made is not made again"


def test_a_strategy_with_late_norms_has_them_in_the_whole_graph_too():
    graph = integer_graphs.post_norm(TIGHT, 50, 128, 2, 32, 256, 2, seed=3)
    strategy = search.Strategy(late=True)
    made = search._made(strategy, search._ordered(strategy, graph, TIGHT), TIGHT)
    assert any("/int16/row" in op.name for op in made.graph.operations)


def test_a_large_graph_is_made_by_the_strategy_that_is_best_for_its_first_operations(monkeypatch):
    monkeypatch.setattr(search, "SAMPLE", 24)
    graph = encoder(TIGHT, 4)
    assert len(graph.operations) > 32
    tried = []
    made = search._scheduled
    monkeypatch.setattr(
        search, "_scheduled", lambda one, g, plan: tried.append(one) or made(one, g, plan)
    )
    best = fastest(graph, TIGHT)
    assert tried[-1] == best.strategy
    assert best.strategy in tried[:-1]
    assert {op.name for op in graph.operations if "norm" not in op.name} <= {
        op.name.split("/")[0] for op in best.graph.operations
    }
    least = min(one.cycles for one in search._Search(graph, TIGHT).run())
    assert best.cycles <= 1.05 * least


@pytest.mark.parametrize(("tokens", "turns"), [(16, 1), (70, 3)])
def test_samples_run_in_turn_where_that_is_faster(tokens, turns):
    """Three samples of 16 tokens fit local memory side by side and share their weights, those of 70
    tokens do not."""
    single = integer_graphs.encoder(TIGHT, tokens, 64, 2, 32, 256)
    graph = batch(single, 3, TIGHT)
    together, best = fastest(graph, TIGHT), fastest(graph, TIGHT, single)
    assert best.strategy.turns == turns
    assert best.graph.samples == 3
    assert best.graph.macs == graph.macs
    if turns > 1:
        assert best.cycles < min(together.cycles, 1.05 * 3 * fastest(single, TIGHT).cycles)
    else:
        assert best.cycles == together.cycles


def test_samples_that_fit_only_in_turn_run_in_turn():
    config = TIGHT.replace(local_kib=48, dram="readonly")
    single = integer_graphs.encoder(config, 70, 64, 2, 32, 128)
    graph = batch(single, 3, config)
    with pytest.raises(CapacityError, match="local_kib"):
        fastest(graph, config)
    assert fastest(graph, config, single).strategy.turns == 3


def test_what_fits_only_in_bands_is_made_in_bands():
    """Without DRAM to write, the scores of 400 x 400 must fit local memory."""
    config = ECP5_85K.replace(local_kib=192, dram="readonly")
    best = fastest(integer_graphs.post_norm(config, 400, 32, 1, 32, 64), config)
    assert [cut.__name__ for cut in best.strategy.cuts] == ["cut_attention"]


def test_what_fits_by_no_strategy_is_refused():
    with pytest.raises(CapacityError, match="local_kib"):
        fastest(encoder(SMALL, 1), SMALL.replace(local_kib=8, dram="readonly"))
