"""Random takes and gives of all engines at once."""

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, semaphore_exists


@cocotb.test()
async def takes_and_gives(dut: Any) -> None:
    """Ready exactly when the model says so; every counter meets both of its ends."""
    rng = make_rng(1)
    await start(dut)
    pairs = [(p, c) for p in SYNC_ENGINES for c in SYNC_ENGINES if semaphore_exists(p, c)]
    counts = dict.fromkeys(pairs, 0)
    seen = {pair: set() for pair in pairs}
    both = 0

    def port(engine: int, name: str) -> Any:
        return getattr(dut, f"ports__{engine}__{name}")

    async def cycle(waits: dict[int, int], signals: dict[int, int]) -> None:
        """Waits and signals: the masks of the engines that ask for something."""
        nonlocal both
        for e in SYNC_ENGINES:
            # Ready may not depend on valid, so masks are there without it as well.
            wait, signal = waits.get(e), signals.get(e)
            port(e, "wait_valid").value = int(wait is not None)
            port(e, "wait_mask").value = rng.getrandbits(6) if wait is None else wait
            port(e, "signal_valid").value = int(signal is not None)
            port(e, "signal_mask").value = rng.getrandbits(6) if signal is None else signal
        await ReadOnly()
        taken, given = [], []
        for e in SYNC_ENGINES:
            wait = int(port(e, "wait_mask").value)
            signal = int(port(e, "signal_mask").value)
            takes = [(p, e) for p in SYNC_ENGINES if wait >> p & 1 and (p, e) in counts]
            gives = [(e, c) for c in SYNC_ENGINES if signal >> c & 1 and (e, c) in counts]
            can_take = all(counts[pair] > 0 for pair in takes)
            can_give = all(counts[pair] < SEMAPHORE_MAX for pair in gives)
            assert int(port(e, "wait_ready").value) == can_take, (e, "wait")
            assert int(port(e, "signal_ready").value) == can_give, (e, "signal")
            taken += takes if can_take and e in waits else []
            given += gives if can_give and e in signals else []
        both += len(set(taken) & set(given))
        for pair in taken:
            counts[pair] -= 1
        for pair in given:
            counts[pair] += 1
        for pair, count in counts.items():
            seen[pair].add(count)
        await FallingEdge(dut.clk)

    for step in range(9000):
        # Now and then all only give or only take, so that counters run into their ends.
        give, take = ((1.0, 0.1), (0.1, 1.0), (0.7, 0.7))[step // 100 % 3]

        def some(share: float) -> dict[int, int]:
            return {
                e: 1 << rng.randrange(6) if rng.random() < 0.7 else rng.getrandbits(6)
                for e in SYNC_ENGINES
                if rng.random() < share
            }

        await cycle(some(take), some(give))
    for pair, values in seen.items():
        assert values == set(range(SEMAPHORE_MAX + 1)), (pair, values)
    assert both > 100
