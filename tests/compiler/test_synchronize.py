"""Every hazard of a program is ordered by its tokens; no counter can overflow in program order."""

import integer_graphs
import numpy as np
import pytest

from gateformer.compiler.accesses import accesses
from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.synchronize import synchronize
from gateformer.spec.configs import ECP5_85K, SMALL, TINY
from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, Engine, Opcode, instruction


def nodes_of(config, program):
    """(position, access, wait, signal) of every engine's part of every instruction, in order."""
    nodes = []
    for position, one in enumerate(program):
        for access in accesses(config, one):
            second = one.opcode is Opcode.GEMM and access.engine is Engine.EPILOGUE
            prefix = "epilogue_" if second else ""
            wait, signal = one[prefix + "wait"], one[prefix + "signal"]
            nodes.append((position, access, wait, signal))
    return nodes


def happens_before(nodes):
    """For every node the set (bits) of nodes complete before it starts, from order and tokens."""
    before, last, tokens, outstanding = [], {}, {}, {}
    for index, (_, access, wait, signal) in enumerate(nodes):
        engine = access.engine
        known = 0
        if engine in last:
            known |= before[last[engine]] | 1 << last[engine]
        for producer in SYNC_ENGINES:
            if wait >> producer & 1:
                giver = tokens[(producer, engine)].pop(0)
                known |= before[giver] | 1 << giver
                outstanding[(producer, engine)] -= 1
        before.append(known)
        last[engine] = index
        for consumer in SYNC_ENGINES:
            if signal >> consumer & 1:
                tokens.setdefault((engine, consumer), []).append(index)
                count = outstanding.get((engine, consumer), 0) + 1
                outstanding[(engine, consumer)] = count
                assert count <= SEMAPHORE_MAX
    assert not any(tokens.values()), "a token is given that nobody takes"
    return before


GRAPHS = {
    "encoder": lambda c: integer_graphs.encoder(c, 17, 48, 3, 16, 96, 2, seed=1),
    "odd": lambda c: integer_graphs.encoder(c, 70, 20, 2, 12, 36, 1, seed=2),
    "product": lambda c: integer_graphs.product(c, 100, 200, 96),
    "spilled": lambda c: integer_graphs.post_norm(c, 70, 64, 2, 32, 256, 1),
    "parts": lambda c: integer_graphs.product(c, 40, 20, 2500),
}


@pytest.mark.parametrize("config", [TINY, SMALL, ECP5_85K], ids=lambda c: c.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_hazard_is_ordered(config, name):
    if name == "spilled":
        config = config.replace(local_kib=16)
    program = compile_quantized(GRAPHS[name](config), config).instructions
    nodes = nodes_of(config, program)
    before = happens_before(nodes)
    readers = [[] for _ in range(config.local_words)]
    writers = [-1] * config.local_words
    for index, (_, access, _, _) in enumerate(nodes):
        reads, writes = words_of(access.reads), words_of(access.writes)
        for word in reads:
            assert writers[word] < 0 or ordered(nodes, before, writers[word], index)
        for word in writes:
            for other in [writers[word], *readers[word]]:
                assert other < 0 or ordered(nodes, before, other, index)
        for word in reads:
            readers[word].append(index)
        for word in writes:
            writers[word], readers[word] = index, []


def words_of(blocks):
    return np.concatenate([np.zeros(0, int), *(block.addresses() for block in blocks)])


def ordered(nodes, before, first, second):
    """Loaders never order each other, and need not: they only read."""
    same = nodes[first][1].engine == nodes[second][1].engine
    return first == second or same or before[second] >> first & 1


def test_a_full_counter_costs_little():
    """Far more words are read and overwritten than a counter has tokens: who overwrites waits for
    a later step than the one it needs, but for none of the last ten."""
    ahead = 2 * SEMAPHORE_MAX
    program = []
    for slot in range(3 * ahead):
        program.append(instruction(Opcode.LOAD_B, n=1, k=8, b_address=slot))
        if slot >= ahead:
            place = slot - ahead
            program.append(instruction(Opcode.DMA_LOAD, rows=1, words=1, local_address=place))
    nodes = nodes_of(SMALL, synchronize(SMALL, program))
    before = happens_before(nodes)
    loads = [i for i, node in enumerate(nodes) if node[1].engine == Engine.LOAD_B]
    stores = [i for i, node in enumerate(nodes) if node[1].engine == Engine.DMA]
    for place, index in enumerate(stores):
        assert before[index] >> loads[place] & 1
        assert not before[index] >> loads[place + ahead - 10] & 1


def test_a_dropped_token_is_noticed():
    """The check above can fail: without one wait some hazard is not ordered."""
    config = SMALL
    program = compile_quantized(GRAPHS["encoder"](config), config).instructions
    nodes = nodes_of(config, program)
    rng = np.random.default_rng(5)
    waiting = [i for i, node in enumerate(nodes) if node[2]]
    for index in rng.choice(waiting, 10, replace=False):
        position, access, _, signal = nodes[index]
        broken = list(nodes)
        broken[index] = (position, access, 0, signal)
        with pytest.raises(AssertionError):
            before = happens_before(broken)
            check_pairs(broken, before)


def check_pairs(nodes, before):
    for second, (_, access, _, _) in enumerate(nodes):
        for first in range(second):
            other = nodes[first][1]
            if np.intersect1d(words_of(other.writes), words_of(access.reads)).size:
                assert ordered(nodes, before, first, second)
