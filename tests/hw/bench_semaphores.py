"""Random takes and gives of all engines at once."""

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly
from drivers import make_rng, start

from gateformer.hw.semaphores import TURNS
from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, semaphore_exists

PAIRS = [(p, c) for p in SYNC_ENGINES for c in SYNC_ENGINES if semaphore_exists(p, c)]
SOON = 2 * TURNS + 3
"""Cycles in which what can happen has happened."""


class Model:
    """Engines that ask at random, and what was handed in and taken of every counter."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng = dut, make_rng(seed)
        self.given = dict.fromkeys(PAIRS, 0)
        self.taken = dict.fromkeys(PAIRS, 0)
        self.masks = {name: dict.fromkeys(SYNC_ENGINES, 0) for name in ("wait", "signal")}
        self.asking: dict[str, dict[int, int]] = {"wait": {}, "signal": {}}
        """Engine -> cycles for which it has asked while nothing stood in the way."""

    def port(self, engine: int, name: str) -> Any:
        return getattr(self.dut, f"ports__{engine}__{name}")

    def touched(self, name: str, e: int) -> list[tuple[int, int]]:
        """The counters that a take or a give concerns."""
        others = [other for other in SYNC_ENGINES if self.masks[name][e] >> other & 1]
        pairs = [(other, e) if name == "wait" else (e, other) for other in others]
        return [pair for pair in pairs if pair in self.given]

    def stock(self, pair: tuple[int, int]) -> int:
        """Tokens in a counter, and those that are handed in for it."""
        return self.given[pair] - self.taken[pair]

    def can(self, name: str, e: int) -> bool:
        """Whether the engine's request has to be granted soon."""
        if name == "wait":
            return all(self.stock(pair) > 0 for pair in self.touched(name, e))
        # What was handed in before has room.
        return all(self.stock(pair) <= SEMAPHORE_MAX for pair in PAIRS if pair[0] == e)

    async def cycle(self, shares: dict[str, float]) -> None:
        """Every engine that does not ask begins to with the probability of `shares`."""
        rng = self.rng
        for name, share in shares.items():
            for e in SYNC_ENGINES:
                if e not in self.asking[name] and rng.random() < share:
                    self.masks[name][e] = rng.getrandbits(6)
                    if rng.random() < 0.95:
                        # One that can move at once, for the others keep this engine waiting.
                        self.masks[name][e] = 63
                        end = 0 if name == "wait" else SEMAPHORE_MAX
                        can = [p for p in self.touched(name, e) if self.stock(p) != end]
                        one = rng.choice(can) if can else (e, e)
                        self.masks[name][e] = 1 << one[name == "signal"]
                    self.asking[name][e] = 0
                self.port(e, f"{name}_valid").value = int(e in self.asking[name])
                self.port(e, f"{name}_mask").value = self.masks[name][e]
        await ReadOnly()
        for name, asking in self.asking.items():
            for e in SYNC_ENGINES:
                ready = int(self.port(e, f"{name}_ready").value)
                assert not ready or e in asking, (name, e)
                if ready:
                    del asking[e]
                    counts = self.given if name == "signal" else self.taken
                    for pair in self.touched(name, e):
                        counts[pair] += 1
                elif e in asking:
                    asking[e] = asking[e] + 1 if self.can(name, e) else 0
                    assert asking[e] <= SOON, (name, e)
        for pair in PAIRS:
            # One more is handed in than the counter holds, and waits there.
            assert 0 <= self.stock(pair) <= SEMAPHORE_MAX + 1, pair
        await FallingEdge(self.dut.clk)


@cocotb.test()
async def takes_and_gives(dut: Any) -> None:
    """No token is lost or made, nobody waits in vain; every counter meets both of its ends."""
    model = Model(dut, 1)
    await start(dut)
    seen: dict[tuple[int, int], set[int]] = {pair: set() for pair in PAIRS}
    for step in range(12000):
        # Now and then nearly all give or nearly all take, so that counters run into their ends.
        give, take = ((1.0, 0.02), (0.02, 1.0), (0.7, 0.7))[step // 250 % 3]
        await model.cycle({"wait": take, "signal": give})
        for pair in PAIRS:
            seen[pair].add(model.stock(pair))
    for pair, values in seen.items():
        assert values >= set(range(SEMAPHORE_MAX + 1)), (pair, values)
    assert any(SEMAPHORE_MAX + 1 in values for values in seen.values())
    for _ in range(40):
        await model.cycle({"wait": 1.0, "signal": 0.0})
    # All that could be given was given.
    for e in SYNC_ENGINES:
        if not model.asking["signal"] and model.can("signal", e):
            assert int(dut.idle.value)


@cocotb.test()
async def handing_over(dut: Any) -> None:
    """From a signal to the wait that it ends: never more than 2 * TURNS cycles."""
    model = Model(dut, 2)
    await start(dut)
    for name in ("wait", "signal"):
        for e in SYNC_ENGINES:
            model.port(e, f"{name}_valid").value = 0
    times = set()
    for p, c in PAIRS:
        for delay in range(TURNS):
            model.port(c, "wait_mask").value = 1 << p
            model.port(c, "wait_valid").value = 1
            for _ in range(10 + delay):
                await FallingEdge(dut.clk)
            model.port(p, "signal_mask").value = 1 << c
            model.port(p, "signal_valid").value = 1
            cycles, done = 0, False
            while not done:
                await ReadOnly()
                handed_in = int(model.port(p, "signal_ready").value)
                done = bool(int(model.port(c, "wait_ready").value))
                await FallingEdge(dut.clk)
                cycles += not done
                if handed_in:
                    model.port(p, "signal_valid").value = 0
                assert cycles <= 2 * TURNS
            model.port(c, "wait_valid").value = 0
            times.add(cycles)
            await FallingEdge(dut.clk)
    print(f"cycles from signal to wait_ready: {sorted(times)}")
