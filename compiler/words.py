"""Sets of words of local memory."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Words of local memory: disjoint ranges that do not touch, ascending, none of them empty."""

    ranges: tuple[range, ...]

    @classmethod
    def outside(cls, taken: Iterable[tuple[int, int]], end: int) -> "Words":
        """The words below `end` that lie in none of the blocks (first word, end)."""
        free, low = [], 0
        for start, stop in sorted(block for block in taken if block[0] < block[1]):
            if low < min(start, end):
                free.append(range(low, min(start, end)))
            low = max(low, stop)
        if low < end:
            free.append(range(low, end))
        return cls(tuple(free))

    def __len__(self) -> int:
        return sum(len(part) for part in self.ranges)

    def __and__(self, other: "Words") -> "Words":
        """The words in both."""
        parts = [
            range(max(a.start, b.start), min(a.stop, b.stop))
            for a in self.ranges
            for b in other.ranges
            if a.start < b.stop and b.start < a.stop
        ]
        return Words(tuple(parts))

    def below(self, end: int) -> "Words":
        """The words before `end`."""
        return self & Words((range(end),))

    def hold(self, block: range) -> bool:
        """Whether all words of a block are among them."""
        return any(part.start <= block.start and block.stop <= part.stop for part in self.ranges)
