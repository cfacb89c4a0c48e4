"""The choice of one among several words."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Literal

from amaranth import Module, Mux, Signal, Value


def select_one(
    m: Module,
    chosen: Sequence[Value],
    words: Sequence[Value],
    *,
    name: str,
    family: Literal["generic", "ecp5", "ice40"] = "generic",
) -> Value:
    """The word whose bit of `chosen` was 1 in the cycle before, 0 if none was; at most one may be.

    On ECP5 flip-flops cost nothing and have a reset of their own: a register for each word that is
    0 unless the word was chosen, and an OR behind them, one LUT a bit for up to four words. On
    iCE40 a lone flip-flop takes a logic cell, so the one register stands behind the gates.
    """
    masked = [Mux(bit, word, 0) for bit, word in zip(chosen, words, strict=True)]
    if family == "ice40":
        masked = [reduce(or_, masked)]
    registers = []
    for i, word in enumerate(masked):
        register = Signal(len(word), name=f"{name}_{i}", reset_less=True)
        m.d.sync += register.eq(word)
        registers.append(register)
    return reduce(or_, registers)
