"""What it costs that operations move bytes from and to DRAM, by each metric."""

import integer_graphs
import pytest

from gateformer.compiler.quantized import QGemm, QNorm, QSoftmax
from gateformer.compiler.residency import Residency
from gateformer.compiler.traffic import good_room, moving_cost
from gateformer.spec.configs import ECP5_85K

GRAPH = integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 256)


def costs(name, resident=()):
    """By bytes, urgency and time, with no rows in local memory but those of some tensors."""
    rows = {t.name: t.rows if t.name in resident else 0 for t in GRAPH.tensors.values()}
    residency = Residency(GRAPH, ECP5_85K, rows)
    (op,) = (op for op in GRAPH.operations if op.name == name)
    room = good_room(op, residency)
    plain, urgent, timed = (
        moving_cost(op, residency, room, metric) for metric in ("bytes", "urgency", "time")
    )
    return op, plain, urgent, timed


@pytest.mark.parametrize(("name", "kind"), [("b0.h0.softmax", QSoftmax), ("b0.norm1", QNorm)])
def test_the_array_soon_waits_for_a_softmax_or_norm(name, kind):
    op, plain, urgent, timed = costs(name)
    assert isinstance(op, kind)
    assert urgent == 4 * plain > 0
    assert timed == plain + plain // 5


def test_the_array_soon_waits_for_keys():
    op, plain, urgent, _ = costs("b0.h0.scores", ("b0.h0.s", "b0.q"))
    assert isinstance(op, QGemm)
    assert urgent == 4 * plain > 0


def test_weights_are_not_urgent():
    op, plain, urgent, timed = costs("b0.up", ("b0.codes", "b0.hidden"))
    weights = GRAPH.tensors["b0.w.up"]
    assert plain >= weights.rows * weights.cols
    assert urgent == plain
    hidden = plain - (timed - plain // 5)
    assert 0 < hidden <= 1.1 * ECP5_85K.bus_bytes * op.macs / ECP5_85K.macs
