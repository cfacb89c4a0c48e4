"""Configs whose simulations several test modules share."""

from gateformer.spec.configs import ECP5_85K, SMALL, TINY

LARGE = ECP5_85K.replace(family="generic")
ONE_PORT = TINY.replace(name="one-port", family="generic", watchdog_cycles=1 << 18)
CLASSICAL = SMALL.replace(
    name="classical",
    rows=3,
    cols=2,
    lanes=1,
    local_kib=48,
    epilogue_lanes=3,
    gelu="polynomial",
    residual_bits=15,
    bus_bytes=8,
    family="generic",
)
"""Not square, one lane; the polynomial GELU; a bus as wide as a word."""
ALONE = SMALL.replace(
    name="alone", rows=2, cols=3, lanes=4, word_bytes=16, local_kib=128, dram="none",
    softmax_lanes=8, norm_lanes=4, family="generic",
)  # fmt: skip
"""No external memory."""
FLASH = TINY.replace(
    name="flash", dram="readonly", rows=2, cols=2, lanes=4, counters=True, family="generic"
)
"""External memory that is only read."""
