"""What each operation of the vector processor asks of its adder."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from gateformer.hw.microcode import Op


class Addend(enum.IntEnum):
    """The adder's first operand: nothing, A, or A without its lowest bit, which goes to Q."""

    ZERO = 0
    A = 1
    HALF_A = 2


class Operand(enum.IntEnum):
    """Its second one."""

    ZERO = 0
    M = 1
    NOT_M = 2
    Q = 3
    EXTERNAL = 4
    EXP = 5


class Carry(enum.IntEnum):
    """What is added to them."""

    ZERO = 0
    ONE = 1
    FLAG = 2


@dataclass(frozen=True)
class Operation:
    """signed: both operands are extended by their sign; gated: the second one and a carry of 1
    count only where Q is odd. to_a, to_q, to_flag: what is set; Q moves on instead where it is
    consumed."""

    addend: Addend
    operand: Operand
    carry: Carry = Carry.ZERO
    signed: bool = False
    gated: bool = False
    to_a: bool = False
    to_q: bool = False
    to_flag: bool = False

    @property
    def moves(self) -> bool:
        """Whether Q takes a bit of A from above."""
        return self.gated or self.addend is Addend.HALF_A


_ZERO, _A, _HALF = Addend
_0, _M, _NOT_M, _Q, _EXTERNAL, _EXP = Operand
_ONE, _FLAG = Carry.ONE, Carry.FLAG

OPERATIONS: Mapping[Op, Operation] = {
    Op.NOP: Operation(_A, _0),
    Op.LOAD: Operation(_ZERO, _M, signed=True, to_a=True),
    Op.LOAD_U: Operation(_ZERO, _M, to_a=True),
    Op.LOAD_C: Operation(_ZERO, _M, _FLAG, signed=True, to_a=True, to_flag=True),
    Op.ADD: Operation(_A, _M, signed=True, to_a=True),
    Op.ADD_U: Operation(_A, _M, to_a=True),
    Op.ADD_C: Operation(_A, _M, to_a=True, to_flag=True),
    Op.ADD_CC: Operation(_A, _M, _FLAG, to_a=True, to_flag=True),
    Op.ADD_S: Operation(_A, _M, signed=True, to_a=True, to_flag=True),
    Op.ADD_SC: Operation(_A, _M, _FLAG, signed=True, to_a=True),
    Op.ADD_Q: Operation(_A, _Q, to_a=True, to_flag=True),
    Op.ADD_TO_Q: Operation(_A, _M, to_q=True, to_flag=True),
    Op.SUBTRACT: Operation(_A, _NOT_M, _ONE, signed=True, to_a=True),
    Op.SUBTRACT_C: Operation(_A, _NOT_M, _ONE, to_a=True, to_flag=True),
    Op.SUBTRACT_CC: Operation(_A, _NOT_M, _FLAG, to_a=True, to_flag=True),
    Op.COMPARE: Operation(_A, _NOT_M, _ONE, to_flag=True),
    Op.COMPARE_S: Operation(_A, _NOT_M, _ONE, signed=True, to_flag=True),
    Op.MOVE: Operation(_ZERO, _M, signed=True, to_flag=True),
    Op.MOVE_Q: Operation(_ZERO, _Q, signed=True, to_flag=True),
    Op.LOAD_Q: Operation(_ZERO, _M, to_q=True),
    Op.A_TO_Q: Operation(_A, _0, to_q=True),
    Op.Q_TO_A: Operation(_ZERO, _Q, to_a=True),
    Op.EXTERNAL: Operation(_ZERO, _EXTERNAL, signed=True, to_a=True),
    Op.EXP: Operation(_ZERO, _EXP, to_q=True),
    Op.FIRST: Operation(_A, _M, signed=True, gated=True, to_a=True, to_q=True),
    Op.FIRST_U: Operation(_A, _M, gated=True, to_a=True, to_q=True),
    Op.STEP: Operation(_HALF, _M, signed=True, gated=True, to_a=True, to_q=True),
    Op.STEP_U: Operation(_HALF, _M, gated=True, to_a=True, to_q=True),
    Op.LAST: Operation(_HALF, _NOT_M, _ONE, signed=True, gated=True, to_a=True, to_q=True),
    Op.SHIFT: Operation(_HALF, _0, signed=True, to_a=True, to_q=True),
    Op.SHIFT_U: Operation(_HALF, _0, to_a=True, to_q=True),
}
