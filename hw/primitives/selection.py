"""The choice of one among several words."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Literal

from amaranth import Const, Instance, Module, Mux, Signal, Value

_FIRST = 0xF0CA
"""SB_LUT4's function I3 ? I2 : (I2 ? I1 : I0)."""
_SECOND = 0xCAF0
"""SB_LUT4's function I3 ? (I2 ? I1 : I0) : I2."""


def select_one(
    m: Module,
    chosen: Sequence[Value],
    words: Sequence[Value],
    *,
    name: str,
    blank: bool = False,
    family: Literal["generic", "ecp5", "ice40"] = "generic",
) -> Value:
    """The word whose bit of `chosen` was 1 in the cycle before; at most one may be.

    If none was, the outcome is 0 with `blank`, else undefined.

    On ECP5 flip-flops cost nothing and have a reset of their own: a register for each word that is
    0 unless the word was chosen, and an OR behind them, one LUT a bit for up to four words. On
    iCE40 a lone flip-flop takes a logic cell, so the one register stands behind the gates; up to
    four words take two LUTs a bit if they need not be blank.
    """
    if family != "ice40":
        masked = [
            _register(m, Mux(bit, word, 0), f"{name}_{i}")
            for i, (bit, word) in enumerate(zip(chosen, words, strict=True))
        ]
        return reduce(or_, masked)
    if blank or len(words) > 4:
        gated = reduce(or_, (Mux(b, w, 0) for b, w in zip(chosen, words, strict=True)))
        return _register(m, gated, name)
    return _register(m, _select_four(m, chosen, words, name), name)


def _select_four(m: Module, chosen: Sequence[Value], words: Sequence[Value], name: str) -> Value:
    """A choice among up to four in two LUTs a bit, which Yosys does not find by itself.

    The first LUT chooses between words 0 and 1; where it is one of the others, it tells the second
    LUT which.
    """
    missing = 4 - len(words)
    bits = [*chosen, *[Const(0, 1)] * missing]
    padded = [*words, *[words[0]] * missing]
    upper, odd = bits[2] | bits[3], bits[1] | bits[3]
    result = Signal(len(words[0]), name=f"{name}_choice")
    for i in range(len(result)):
        first = Signal(name=f"{name}_first_{i}")
        for stage, inputs, output, table in (
            ("first", (padded[0][i], padded[1][i], odd), first, _FIRST),
            ("second", (padded[2][i], padded[3][i], first), result[i], _SECOND),
        ):
            m.submodules[f"{name}_{stage}_{i}"] = Instance(
                "SB_LUT4",
                p_LUT_INIT=Const(table, 16),
                i_I0=inputs[0],
                i_I1=inputs[1],
                i_I2=inputs[2],
                i_I3=upper,
                o_O=output,
            )
    return result


def _register(m: Module, value: Value, name: str) -> Signal:
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
