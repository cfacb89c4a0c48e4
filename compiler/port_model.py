"""The read port of local memory over time, shared by all engines."""

import numpy as np

SLOT = 64
"""Cycles that are counted together."""


class PortModel:
    """How many cycles of each slot of time are taken.

    Engines come in the order of the program, not of time: who comes later sees what those before
    it have taken.
    """

    def __init__(self) -> None:
        self._taken = np.zeros(1 << 10)

    def spread(self, first: int, last: int, words: int) -> None:
        """Takes words one after another, evenly between two times."""
        if not words:
            return
        a, b = first // SLOT, max(last - 1, first) // SLOT + 1
        self._grow(b)
        self._taken[a:b] += words / (b - a)

    def late(self, time: int, words: int, least: float) -> int:
        """Cycles beyond one a word that words from a time on take, when others leave them as much
        as is not taken, or at least a part of every slot."""
        end, left = float(time), float(words)
        while left > 0:
            slot = int(end) // SLOT
            self._grow(slot + 1)
            rate = max(1 - self._taken[slot] / SLOT, least)
            step = min(left / rate, (slot + 1) * SLOT - end)
            left -= step * rate
            end += step
        return round(end) - time - words

    def _grow(self, count: int) -> None:
        if count > len(self._taken):
            more = np.zeros(max(count, 2 * len(self._taken)) - len(self._taken))
            self._taken = np.concatenate([self._taken, more])
