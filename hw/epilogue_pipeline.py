"""Registers of a pipeline that never stalls."""

from typing import Any

from amaranth import Module, Signal, Value


def delayed(m: Module, value: Value, cycles: int, name: str) -> Any:
    """The value of `cycles` cycles ago, in registers without a reset."""
    for cycle in range(cycles):
        register = Signal.like(value, name=f"{name}_{cycle}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def cleared(m: Module, value: Value, clear: Value, name: str) -> Any:
    """The value of the cycle before, or 0 when `clear` was 1.

    The flip-flops' own reset does it, so that a choice among n values is an OR of n registers.
    """
    register = Signal.like(value, name=name, reset_less=True)
    with m.If(clear):
        m.d.sync += register.eq(0)
    with m.Else():
        m.d.sync += register.eq(value)
    return register
