"""Pieces of the vector processor's program that recur."""

from amaranth.utils import exact_log2

from gateformer.hw.microcode import Action, Assembler, Condition, Op
from gateformer.spec.config import AcceleratorConfig

GAIN_WORDS = 3
"""Words of a gain record in the processor's memory: gain, lower and upper half of the bias."""


class Steps(Assembler):
    """An assembler that knows what several instructions do alike.

    Register `j` counts the bytes of a row, and A holds it where a loop begins.
    """

    def __init__(self, registers: dict[str, int], config: AcceleratorConfig) -> None:
        super().__init__(registers)
        self.config = config

    def field(self, word: int, half: int, *, to: str | None = None) -> None:
        """A = the half of a word of the instruction; its upper bits are 0 where it is a size."""
        self.do(Op.EXTERNAL, action=Action.FIELD, literal=2 * word + half, to=to)

    def unless_zero(self, label: str) -> None:
        """Goes to `label` if A is not 0."""
        self.do(Op.COMPARE, "one")
        self.when(Condition.CARRY, label)

    def set(self, source: str, target: str) -> None:
        """target = source; C = its sign."""
        self.do(Op.MOVE, source, to=target)

    def locate(self, base: str, *, offset: str | None = None, to: str | None = None) -> None:
        """From the byte A of a row at `base`, the address of its word; selects the byte. `offset`
        gets the number of the word. Loses Q."""
        bits = exact_log2(self.config.word_bytes)
        self.do(Op.SHIFT, action=Action.SELECT)
        if bits == 3:
            self.do(Op.SHIFT)
            self.do(Op.SHIFT, to=offset)
        else:
            self.repeat(Op.SHIFT, times=bits - 1, to=offset)
        self.do(Op.ADD, base, to=to)

    def get(self, *, offset: str | None = None) -> None:
        """A = x = byte A of the row at `source` as the upper byte, or those two bytes."""
        self.locate("source", offset=offset)
        self.do(Op.NOP, action=Action.READ)
        self.do(Op.EXTERNAL, action=Action.RESPONSE, to="x")

    def advance(self, step: str) -> None:
        """A = j = j + step."""
        self.do(Op.LOAD_U, "j")
        self.do(Op.ADD, step, to="j")

    def product(self, operand: str, *, unsigned: bool = False, signed: bool = False) -> None:
        """A and Q = Q * operand + A. unsigned: both are; signed: Q is, too; else the operand is."""
        first, step = (Op.FIRST_U, Op.STEP_U) if unsigned else (Op.FIRST, Op.STEP)
        self.do(first, operand)
        self.repeat(step, operand, times=14 if signed else 15)
        if signed:
            self.do(Op.LAST, operand)

    def shift_if(self, flag: str, bits: int, name: str) -> None:
        """A and Q go to the right if the flag is set; `name` makes the labels."""
        self.do(Op.MOVE, flag)
        self.when(Condition.CARRY, f"{name}_set")
        self.jump(f"{name}_done")
        self.label(f"{name}_set")
        self._shift(bits)
        self.label(f"{name}_done")

    def shift_unless(self, flag: str, bits: int, name: str) -> None:
        """A and Q go to the right if the flag is not set; `name` makes a label."""
        self.do(Op.MOVE, flag)
        self.when(Condition.CARRY, f"{name}_set")
        self._shift(bits)
        self.label(f"{name}_set")

    def _shift(self, bits: int) -> None:
        self.do(Op.SHIFT)
        if bits > 1:
            self.repeat(Op.SHIFT, times=bits - 1)

    def next_flag(self, *names: str) -> None:
        """A and Q go to the right by a bit, which becomes the sign of the registers."""
        self.do(Op.SHIFT)
        for name in names:
            self.do(Op.MOVE_Q, to=name)
