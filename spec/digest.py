"""The running hash by which "bit-exact" is judged: one 32-bit digest for each instruction.

A digest is the sum, modulo 2**32, of one mixed value for each byte written (address, value). Being
a sum, it does not depend on how the hardware groups or orders the bytes of one instruction.
"""

import numpy as np

MIX = (0x9E3779B1, 15, 0x85EBCA77, 13)
"""Multiplier, xor-shift, multiplier, xor-shift of the mixing function, on 32 bits."""


def mix(addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mixed 32 bits of each byte; addresses count bytes, values are bytes (uint8)."""
    first, shift1, second, shift2 = MIX
    z = (addresses.astype(np.uint32) << np.uint32(8)) ^ values.astype(np.uint32)
    z = z * np.uint32(first)
    z ^= z >> np.uint32(shift1)
    z = z * np.uint32(second)
    return z ^ (z >> np.uint32(shift2))


def digest(addresses: np.ndarray, values: np.ndarray) -> int:
    """The digest of bytes written: addresses (byte addresses) and values of equal shape."""
    return int(mix(addresses.ravel(), values.ravel()).sum(dtype=np.uint64) & np.uint64(0xFFFFFFFF))
