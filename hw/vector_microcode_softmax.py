"""The vector processor's program for SOFTMAX."""

from amaranth.utils import exact_log2

from gateformer.hw.microcode import MEMORY, Action, Condition, Op
from gateformer.hw.vector_steps import Steps


def assemble_softmax(a: Steps) -> None:
    """A row is read twice: for its largest score, and for its numerators."""
    _start(a)
    _scores(a)
    _pads(a)
    _division(a)
    _record(a)


def _start(a: Steps) -> None:
    do = a.do
    a.label("softmax")
    do(Op.LOAD_U, "length")
    a.unless_zero("softmax_length")
    a.jump("finish")
    a.label("softmax_length")
    # The length in whole words.
    do(Op.ADD, "word_bytes")
    do(Op.SUBTRACT, "one")
    a.repeat(Op.SHIFT, times=exact_log2(a.config.word_bytes))
    do(Op.A_TO_Q)
    do(Op.LOAD, "zero", to="record")
    a.product("word_bytes", unsigned=True)
    do(Op.SHIFT_U)
    do(Op.MOVE_Q, to="end")
    do(Op.LOAD_U, "causal")
    a.repeat(Op.SHIFT, times=8)
    a.next_flag("causal")


def _scores(a: Steps) -> None:
    """Goes through the scores that count, for the largest one, or for numerators."""
    do = a.do
    a.label("softmax_row")
    a.set("bound", "count")
    do(Op.LOAD_U, "bound")
    do(Op.COMPARE, "length")
    a.when(Condition.CARRY, "softmax_whole")
    a.jump("softmax_counted")
    a.label("softmax_whole")
    a.set("length", "count")
    a.label("softmax_counted")
    a.set("x8000", "top")
    a.set("x8000", "searching")
    a.label("scores")
    do(Op.LOAD_U, "zero")
    do(Op.NOP, to="j")
    a.label("score")
    do(Op.COMPARE, "count")
    a.when(Condition.CARRY, "scores_end")
    a.get(offset="offset")
    do(Op.MOVE, "searching")
    a.when(Condition.CARRY, "search")
    # Where the table has the numerator of a difference.
    do(Op.SUBTRACT, "top")
    do(Op.NOP)
    do(Op.EXP)
    do(Op.LOAD_U, "sum_low")
    do(Op.ADD_Q, to="sum_low")
    do(Op.LOAD_C, "sum_high", to="sum_high")
    do(Op.LOAD_U, "offset")
    do(Op.ADD, "goal")
    do(Op.NOP, action=Action.WRITE)
    a.jump("next_score")
    a.label("search")
    do(Op.COMPARE_S, "top")
    a.when(Condition.CARRY, "next_score")
    do(Op.NOP, to="top")
    a.label("next_score")
    a.advance("one")
    a.jump("score")
    a.label("scores_end")
    do(Op.MOVE, "searching")
    a.when(Condition.CARRY, "found")
    a.jump("pads")
    # The largest score is the upper byte; below it are others that were read with it.
    a.label("found")
    do(Op.LOAD, "top")
    a.repeat(Op.SHIFT, times=8)
    do(Op.LOAD_Q, "zero")
    a.repeat(Op.SHIFT, times=8)
    do(Op.MOVE_Q, to="top")
    a.set("zero", "sum_low")
    a.set("zero", "sum_high")
    a.set("zero", "searching")
    a.jump("scores")


def _pads(a: Steps) -> None:
    """0 for the rest of the row's words."""
    do = a.do
    a.label("pads")
    do(Op.COMPARE, "end")
    a.when(Condition.CARRY, "divide")
    a.locate("goal")
    do(Op.LOAD_Q, "zero")
    do(Op.NOP, action=Action.WRITE)
    a.advance("one")
    a.jump("pads")


def _division(a: Steps) -> None:
    """(multiplier, selector) = spec.arithmetic.reciprocal(numerator, sum): a division that restores
    the remainder, bit by bit; the quotient takes the numerator's place."""
    do = a.do
    a.label("divide")
    a.set("low", "quotient_low")
    a.set("high", "quotient_high")
    a.set("zero", "rest_low")
    a.set("zero", "rest_high")
    do(Op.LOAD_U, "two")
    do(Op.ADD, "one", to="selector")
    do(Op.LOAD_U, "sum_low")
    do(Op.SUBTRACT_C, "one")
    do(Op.LOAD_U, "sum_high")
    do(Op.SUBTRACT_CC, "zero")
    a.when(Condition.CARRY, "quotient")
    a.set("zero", "multiplier")
    a.jump("record")
    a.label("quotient")
    a.set("last_bit", "turns")
    a.label("quotient_bit")
    do(Op.LOAD_U, "quotient_low")
    do(Op.ADD_C, "quotient_low", to="quotient_low")
    for part in ("quotient_high", "rest_low", "rest_high"):
        do(Op.LOAD_U, part)
        do(Op.ADD_CC, part, to=part)
    do(Op.LOAD_U, "rest_low")
    do(Op.SUBTRACT_C, "sum_low", to="t")
    do(Op.LOAD_U, "rest_high")
    do(Op.SUBTRACT_CC, "sum_high", to="u")
    a.when(Condition.CARRY, "quotient_1")
    a.jump("quotient_next")
    a.label("quotient_1")
    a.set("t", "rest_low")
    a.set("u", "rest_high")
    do(Op.LOAD_U, "quotient_low")
    do(Op.ADD, "one", to="quotient_low")
    a.label("quotient_next")
    do(Op.LOAD_U, "turns")
    do(Op.SUBTRACT_C, "one", to="turns")
    a.when(Condition.CARRY, "quotient_bit")

    # Four bits are cut until at most 16 are left, three times at most.
    do(Op.LOAD_Q, "quotient_low")
    a.label("cut")
    do(Op.LOAD_U, "quotient_high")
    a.unless_zero("too_large")
    do(Op.MOVE_Q, to="multiplier")
    a.jump("record")
    a.label("too_large")
    do(Op.LOAD_U, "selector")
    do(Op.SUBTRACT_C, "one")
    a.when(Condition.CARRY, "cut_once")
    do(Op.LOAD, "zero")
    do(Op.SUBTRACT, "one", to="multiplier")
    a.jump("record")
    a.label("cut_once")
    do(Op.NOP, to="selector")
    do(Op.LOAD_U, "quotient_high")
    a.repeat(Op.SHIFT, times=4)
    do(Op.NOP, to="quotient_high")
    a.jump("cut")


def _record(a: Steps) -> None:
    """Writes the row's scale record: no bias, multiplier, selector."""
    do = a.do
    a.label("record")
    do(Op.LOAD_U, "record_end", action=Action.SWAP)
    do(Op.SUBTRACT, "two")
    do(Op.SUBTRACT, "two", to="u")
    a.label("record_half")
    do(Op.LOAD_U, "record")
    a.locate("goal", to="t")
    do(Op.LOAD_U, "u")
    do(Op.ADD, "one", to="u", action=Action.PEEK)
    do(Op.LOAD_Q, MEMORY)
    do(Op.LOAD_U, "t")
    do(Op.NOP, action=Action.WRITE)
    do(Op.LOAD_U, "record")
    do(Op.ADD, "two", to="record")
    do(Op.LOAD_U, "u")
    do(Op.COMPARE, "record_end")
    a.when(Condition.CARRY, "next_row")
    a.jump("record_half")
    a.label("next_row")
    do(Op.MOVE, "causal", action=Action.SWAP)
    do(Op.LOAD_C, "bound", to="bound")
    do(Op.LOAD_U, "source")
    do(Op.ADD, "source_stride", to="source")
    do(Op.LOAD_U, "goal")
    do(Op.ADD, "stride8", to="goal")
    do(Op.LOAD_U, "rows")
    do(Op.SUBTRACT, "one", to="rows")
    a.unless_zero("softmax_row")
    a.jump("finish")
