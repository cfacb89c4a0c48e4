"""The first blocks of a program's first product."""

import integer_graphs
import pytest

from gateformer.compiler.constants import Constants
from gateformer.compiler.emission import Emission
from gateformer.compiler.gemm_tiling import GemmTiler
from gateformer.compiler.graph import Role
from gateformer.compiler.quantized import QGemm
from gateformer.compiler.spilling import plan_memory
from gateformer.spec.configs import ECP5_85K


def tiling(graph, config, index=None):
    """The tiling of one of the graph's products, the first by default."""
    emission = Emission(graph, config, plan_memory(graph, config), Constants(0, config.word_bytes))
    products = [i for i, op in enumerate(graph.operations) if isinstance(op, QGemm)]
    emission.operation = products[0] if index is None else products[index]
    return GemmTiler(emission, graph.operations[emission.operation]).tiling


def widths(tiling):
    return [block.count for block in tiling.blocks]


def test_blocks_follow_one_another():
    graph = integer_graphs.product(ECP5_85K, 197, 192, 768)
    blocks = tiling(graph, ECP5_85K.replace(local_kib=176)).blocks
    assert [b.column for b in blocks] == [sum(widths_) for widths_ in prefixes(blocks)]
    assert sum(block.count for block in blocks) == 192


def prefixes(blocks):
    return [[b.count for b in blocks[:i]] for i in range(len(blocks))]


def test_an_input_from_dram_comes_during_the_first_block():
    """197 rows of 768 bytes take 77,000 cycles; half of the ring (64 columns) is work for as long,
    which leaves no time for the next block. Both fit the ring together."""
    config = ECP5_85K.replace(local_kib=176)
    first, second, *rest = widths(tiling(integer_graphs.product(config, 197, 192, 768), config))
    ring = config.b_depth // (768 // config.word_bytes) * config.cols
    assert first > ring // 2
    assert first + second <= ring
    assert all(width <= ring // 2 for width in rest)
    work = 50 * 96 * first // config.cols
    come = (192 * 768 + second * 768) // config.bus_bytes
    assert work >= 0.9 * come


def test_rows_in_local_memory_find_a_narrow_block():
    config = ECP5_85K.replace(dram="readonly", local_kib=320)
    graph = integer_graphs.product(config, 197, 64, 192)
    assert graph.tensors["x"].role is Role.INPUT
    first, second = widths(tiling(graph, config))
    assert first < second
    assert first + second == 64


@pytest.mark.parametrize("index", [1, -1])
def test_later_products_have_equal_blocks(index):
    graph = integer_graphs.encoder(ECP5_85K, 64, 192, 3, 64, 768)
    found = widths(tiling(graph, ECP5_85K, index))
    assert max(found) - min(found) <= 16
