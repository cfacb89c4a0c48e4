"""The bus to external memory, burst by burst, as `DramTiming` describes it."""

from gateformer.spec.dram import DramTiming


class DramBus:
    """One memory's bus in time: bursts one after another, row misses and refreshes between them.
    turns: whether a reading port's burst waits until the last beat of the one before has come."""

    def __init__(self, timing: DramTiming, *, turns: bool) -> None:
        self.timing = timing
        self.turns = turns
        self.free = 0
        """When the burst in progress has left the bus."""
        self.accepts = 0
        """When the arbiter of the reading ports can take the next burst: it holds one that waits
        for the bus."""
        self.beats = 0
        self.occupied = 0
        self._row = -1
        self._refresh = timing.refresh_every

    def read(self, time: int, address: int, beats: int) -> int:
        """Takes a burst that a reading port offers at `time`; the cycle after its last beat on the
        bus, which arrives timing.latency - 1 cycles later."""
        end = self.burst(max(time, self.accepts) + 1, address, beats)
        if self.turns:
            self.accepts = end + self.timing.latency
        return end

    def burst(self, time: int, address: int, beats: int) -> int:
        """Takes a burst that is offered to the memory at `time`; the cycle after its last beat on
        the bus."""
        timing = self.timing
        start = max(time, self.free)
        while self._refresh <= start:
            done = max(self._refresh, self.free) + timing.refresh_cycles
            self.occupied += timing.refresh_cycles
            self.free = done
            start = max(start, done)
            self._refresh += timing.refresh_every
            self._row = -1
        row = address // timing.row_bytes
        miss = timing.miss_cycles if row != self._row else 0
        self._row = row
        self.accepts = start + 1
        self.free = start + miss + beats + 1
        self.beats += beats
        self.occupied += miss + beats + 1
        return self.free
