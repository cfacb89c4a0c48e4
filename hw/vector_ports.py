"""What the parts of the vector engine say to each other, and the sizes they share."""

from amaranth import unsigned
from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature

from gateformer.spec.config import AcceleratorConfig

EXP_ENTRIES = 256
"""Bytes of an EXP_TABLE."""


def group_bytes(config: AcceleratorConfig) -> int:
    """Bytes of a *group*, the piece of a word that the parts pass on: what softmax takes in a
    cycle, or what the norm takes in two, so that both of its outputs find a cycle for theirs."""
    return min(8, max(4, config.softmax_lanes, 4 * config.norm_lanes))


def norm_interval(config: AcceleratorConfig) -> int:
    """Cycles between two steps of the norm unit, each of norm_lanes channels."""
    return 1 if 4 * config.norm_lanes <= group_bytes(config) else 2


def softmax_hold(config: AcceleratorConfig) -> int:
    """Cycles for which softmax holds a group."""
    return group_bytes(config) // config.softmax_lanes


def norm_hold(config: AcceleratorConfig) -> int:
    """Cycles for which the norm holds a group."""
    return group_bytes(config) // (2 * config.norm_lanes) * norm_interval(config)


def row_words(config: AcceleratorConfig) -> int:
    """Words of the longest row; a table is read as one, too."""
    return max(config.softmax_length, 2 * config.norm_length, EXP_ENTRIES) // config.word_bytes


def hold_shape(config: AcceleratorConfig) -> Shape:
    """Of the number of cycles, less one, for which a group is held."""
    longest = max(softmax_hold(config), norm_hold(config), group_bytes(config))
    return Shape.cast(range(longest))


class GroupSource(Signature):
    """Groups of rows in order, seen from the reader.

    `valid` is 1 for the first cycle of a group, which stays for the job's hold: `group`, `mask` (a
    bit for each byte that counts), `end` (the row's last group), `final` (the job's last row).
    Groups can not be stalled; rows can: the groups of a row's last word come only while no earlier
    row is `owed`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        size = group_bytes(config)
        super().__init__(
            {
                "valid": Out(1),
                "group": Out(8 * size),
                "mask": Out(size),
                "end": Out(1),
                "final": Out(1),
            }
        )


class RowPort(Signature):
    """Between the two passes over a row, seen from the unit that computes the row's statistics.

    `ready` says that those of the next row are there, `final` that it is the job's last; `load` is
    1 for a cycle before its first group is replayed. `free` is 1 for a cycle when the statistics of
    another row may come.
    """

    def __init__(self) -> None:
        super().__init__({"ready": Out(1), "final": Out(1), "load": In(1), "free": Out(1)})


class Replay(Signature):
    """A row's second pass, seen from its control.

    The units see `go` in the cycle before a group comes from the ring, with `begin` for the row's
    first, `end` for its last, and `final` in the job's last row. The group stays for the job's
    hold.
    """

    def __init__(self) -> None:
        super().__init__({"go": Out(1), "begin": Out(1), "end": Out(1), "final": Out(1)})


def out_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A group to write: its data, the channel, and whether it ends the row or the job."""
    return data.StructLayout(
        {"data": unsigned(8 * group_bytes(config)), "channel": 1, "end": 1, "final": 1}
    )
