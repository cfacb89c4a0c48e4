"""The words of local memory that no tensor occupies: what streams passes through them."""


class Staging:
    """Allocation in program order, within bounds that move with the operations.

    Blocks are searched upwards from where the last one ended, so that words are used again as late
    as possible; with `packed` from the lower bound on, which leaves the fewest holes.
    """

    def __init__(self, words: range, *, packed: bool) -> None:
        self.bounds = words
        self.packed = packed
        self.position = words.start
        self.taken: dict[int, int] = {}

    def gaps(self, bounds: range) -> list[tuple[int, int]]:
        """Free blocks (first word, end) within bounds, ascending."""
        low = bounds.start
        free = []
        for start in sorted(self.taken):
            if start > low:
                free.append((low, min(start, bounds.stop)))
            low = max(low, start + self.taken[start])
        free.append((low, bounds.stop))
        return [(a, b) for a, b in free if a < b]

    def places(self, count: int, bounds: range | None = None) -> list[int]:
        """First words of free blocks within bounds (None: those of now), the best place first."""
        gaps = self.gaps(self.bounds if bounds is None else bounds)
        fitting = [a for a, b in gaps if b - a >= count]
        if self.packed:
            return fitting
        later = [max(a, self.position) for a, b in gaps if b - max(a, self.position) >= count]
        return later + fitting + [b - count for a, b in gaps if b - a >= count]

    def take(self, address: int, count: int) -> None:
        """Takes a block that is free."""
        self.taken[address] = count
        self.position = address + count

    def claim(self, address: int, count: int) -> bool:
        """Takes the block at an address within bounds; False where part of it is taken."""
        block = range(address, address + count)
        if any(start < block.stop and block.start < start + n for start, n in self.taken.items()):
            return False
        self.taken[address] = count
        return True

    def free(self, address: int) -> None:
        del self.taken[address]

    def largest_gap(self, bounds: range) -> int:
        """Words of the largest free block within bounds."""
        return max((b - a for a, b in self.gaps(bounds)), default=0)
