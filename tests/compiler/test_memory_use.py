"""The account of what every operation takes of local memory."""

import integer_graphs
import pytest

from gateformer.compiler.graph import Role, View
from gateformer.compiler.memory_use import MemoryUse
from gateformer.compiler.traffic import least_room
from gateformer.spec.configs import ECP5_85K


def account(graph, config=ECP5_85K):
    return MemoryUse(graph, config, "bytes", 8)


def test_rows_move_out_by_groups():
    use = account(integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 128))
    name, taken = "b0.hidden", use.load[0]
    for rows, fewer in ((70, 64), (64, 32), (32, 0)):
        assert use.steps(name) == ([fewer, 0] if fewer else [0])
        use.change(name, fewer)
        assert use.more(name) == rows
    assert use.load[0] == taken, "it does not live there"


def test_scale_records_are_never_parted():
    use = account(integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 128))
    records = [t for t in use.graph.tensors.values() if t.kind == "record"]
    assert records
    assert all(use.steps(t.name) == [0] for t in records)


def test_tiles_of_b_are_never_parted():
    """Columns of the array fall on rows 33, 37, ... of the second product's right operand."""
    g = integer_graphs.Builder(ECP5_85K, 1)
    x = g.tensor("x", 66, 32, Role.INPUT)
    k = g.tensor("k", 66, 32)
    g.gemm("k", x, g.weights("w", 32, 32), k)
    for row in (0, 33):
        y = g.tensor(f"y{row}", 33, 33, Role.OUTPUT)
        a, b = (View(v.tensor, row, 33, 0, 32) for v in (x, k))
        g.gemm(f"y{row}", a, b, y)
    use = account(g.done())
    assert use.less(use.graph.tensors["k"], 66) == 33 + 4 * 7
    assert use.splits(use.graph.tensors["k"], 33)
    assert not use.splits(use.graph.tensors["k"], 34)


@pytest.mark.parametrize(("modesty", "tiny"), [(2, False), (3, True)])
def test_a_modest_operation_needs_no_share_of_local_memory(modesty, tiny):
    use = account(integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 128))
    share = ECP5_85K.local_words // 8
    for index, op in enumerate(use.graph.operations):
        assert use.need(index) >= share
        use.modesty[index] = 1
        assert use.need(index) >= share
        use.modesty[index] = modesty
        assert use.need(index) == least_room(op, use.residency(), tiny=tiny) < share


def test_an_heir_takes_its_sources_place():
    graph = integer_graphs.post_norm(ECP5_85K, 70, 64, 2, 32, 128)
    use = account(graph)
    name, heir = next(iter(use.heirs.items()))
    index, words = heir.operations[-1], use.layouts[name].words_of_rows(70)
    before = use.load[index]
    use.change(name, 0)
    assert use.load[index] == before, "the source has the words still"
    use.change(heir.source, 0)
    assert use.load[index] == before - words
