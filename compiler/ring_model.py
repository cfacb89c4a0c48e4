"""Room in a ring or a buffer, over time."""

from collections import deque


class Ring:
    """A buffer of `depth` places, taken and given back in order, as a model of when there is room.

    Places are given back evenly over a span of time.
    """

    def __init__(self, depth: int) -> None:
        self._spare = depth
        """Places that were never taken."""
        self._given: deque[tuple[int, int, int]] = deque()
        """Places given back and not taken again: how many, from when, until when."""

    def take(self, count: int) -> int:
        """Takes places; when the last of them is free. At once where too few were given back: a
        program for which that holds cannot run."""
        spare = min(count, self._spare)
        self._spare -= spare
        count -= spare
        time = 0
        while count and self._given:
            places, first, last = self._given.popleft()
            used = min(count, places)
            middle = first + (last - first) * used // places
            time = middle
            if used < places:
                self._given.appendleft((places - used, middle, last))
            count -= used
        return time

    def give(self, count: int, first: int, last: int) -> None:
        """Gives places back, one after another between two times."""
        if count:
            self._given.append((count, first, last))
