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

    masks = {"wait": dict.fromkeys(SYNC_ENGINES, 0), "signal": dict.fromkeys(SYNC_ENGINES, 0)}
    asking = {"wait": set(), "signal": set()}
    ready = {"wait": set(), "signal": set()}

    limits = {"wait": 0, "signal": SEMAPHORE_MAX}

    def touched(name: str, e: int) -> list[tuple[int, int]]:
        """The counters that a take or a give concerns."""
        others = [other for other in SYNC_ENGINES if masks[name][e] >> other & 1]
        pairs = [(other, e) if name == "wait" else (e, other) for other in others]
        return [pair for pair in pairs if pair in counts]

    async def cycle(shares: dict[str, float]) -> None:
        """Every engine that does not ask begins to with the probability of `shares`."""
        nonlocal both
        for name, share in shares.items():
            for e in SYNC_ENGINES:
                if e not in asking[name]:
                    masks[name][e] = rng.getrandbits(6)
                    if rng.random() < 0.95:
                        # One that can move at once, for the others keep this engine waiting.
                        masks[name][e] = 63
                        can = [pair for pair in touched(name, e) if counts[pair] != limits[name]]
                        one = rng.choice(can) if can else (e, e)
                        masks[name][e] = 1 << one[name == "signal"]
                    if rng.random() < share:
                        asking[name].add(e)
                port(e, f"{name}_valid").value = int(e in asking[name])
                port(e, f"{name}_mask").value = masks[name][e]
        await ReadOnly()
        moved: dict[str, list[tuple[int, int]]] = {"wait": [], "signal": []}
        coming: dict[str, set[int]] = {"wait": set(), "signal": set()}
        for name in shares:
            for e in SYNC_ENGINES:
                assert int(port(e, f"{name}_ready").value) == (e in ready[name]), (e, name)
                if e in ready[name]:
                    asking[name].remove(e)
                    moved[name] += touched(name, e)
                elif e in asking[name] and all(
                    counts[pair] != limits[name] for pair in touched(name, e)
                ):
                    coming[name].add(e)
        ready.update(coming)
        both += len(set(moved["wait"]) & set(moved["signal"]))
        for pair in moved["wait"]:
            counts[pair] -= 1
        for pair in moved["signal"]:
            counts[pair] += 1
        for pair, count in counts.items():
            assert 0 <= count <= SEMAPHORE_MAX
            seen[pair].add(count)
        await FallingEdge(dut.clk)

    for step in range(15000):
        # Now and then nearly all give or nearly all take, so that counters run into their ends.
        give, take = ((1.0, 0.05), (0.05, 1.0), (0.7, 0.7))[step // 250 % 3]
        await cycle({"wait": take, "signal": give})
    for pair, values in seen.items():
        assert values == set(range(SEMAPHORE_MAX + 1)), (pair, values)
    assert both > 100
