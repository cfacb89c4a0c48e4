"""The grid of integer codes that a quantization-aware file rounds a tensor to."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """real value = scale * (code - zero), for signed codes of `bits` bits.

    scale, zero: float64 and int64, one for the whole tensor, or [n], one for each index along
    `axis`. Unsigned codes of a file are moved down by half their range, and their zero with them.
    """

    scale: np.ndarray
    zero: np.ndarray
    bits: int
    axis: int | None = None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and (self.bits, self.axis) == (other.bits, other.axis)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )

    @property
    def least(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def starts_at_zero(self) -> bool:
        """Whether no value of the grid is negative: then rounding to it is a ReLU as well."""
        return bool(np.all(self.zero == self.least))

    def along(self, axis: int) -> "Grid":
        """The grid of the same elements when its axis is another one."""
        return Grid(self.scale, self.zero, self.bits, axis)
