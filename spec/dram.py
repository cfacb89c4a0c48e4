"""What external memory does beside moving one beat in a cycle."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DramTiming:
    """The timing of an SDR SDRAM as the accelerator's port sees it, in cycles.

    latency: from taking a burst in an open row to the offer of its first beat. row_bytes: a burst
    in another row than the last one's waits for miss_cycles. Every refresh_every cycles, after the
    burst in progress, the memory is closed for refresh_cycles and its row with it. A burst of n
    beats occupies the bus for n + 1 cycles.
    """

    latency: int = 6
    row_bytes: int = 1024
    miss_cycles: int = 6
    refresh_every: int = 780
    refresh_cycles: int = 8


SDRAM = DramTiming()
"""A 16-bit SDR SDRAM at about 100 MHz."""
IDEAL = DramTiming(row_bytes=1 << 30, miss_cycles=0, refresh_every=1 << 30, refresh_cycles=0)
"""A memory that never misses and never refreshes."""
