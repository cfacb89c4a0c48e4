"""The words of local memory that no tensor occupies: what streams passes through them."""

from gateformer.compiler.words import Words


class Staging:
    """Allocation in program order, within bounds that move with the operations.

    Blocks are searched upwards from where the last one ended, so that words are used again as late
    as possible; with `packed` from the lower bound on, which leaves the fewest holes.
    """

    def __init__(self, words: Words, *, packed: bool) -> None:
        self.bounds = words
        self.packed = packed
        self.position = 0
        self.taken: dict[int, int] = {}

    def gaps(self, bounds: Words) -> list[tuple[int, int]]:
        """Free blocks (first word, end) within bounds, ascending."""
        taken = sorted(self.taken.items())
        free = []
        for part in bounds.ranges:
            low = part.start
            for start, count in taken:
                if start + count <= low:
                    continue
                if start >= part.stop:
                    break
                free.append((low, start))
                low = start + count
            free.append((low, part.stop))
        return [(a, b) for a, b in free if a < b]

    def places(self, count: int, bounds: Words | None = None) -> list[int]:
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
