"""The vector processor's memory and program: its registers, what is common, and the tables."""

from gateformer.hw.microcode import BANKED, NOTHING, Action, Condition, Op
from gateformer.hw.vector_microcode_norm import assemble_norm
from gateformer.hw.vector_microcode_softmax import assemble_softmax
from gateformer.hw.vector_steps import GAIN_WORDS, Steps
from gateformer.spec.arithmetic import NORM_FRACTION, RSQRT_INDEX_BITS, rsqrt_table
from gateformer.spec.config import AcceleratorConfig

EXP_ENTRIES = 256
"""Bytes of an EXP_TABLE."""
_ROOTS = 64
"""Where the table of reciprocal roots begins, behind the registers."""
_LEAST_ROOT = 1 << RSQRT_INDEX_BITS - 2
"""Its first entry in use."""
_GAINS = _ROOTS + (1 << RSQRT_INDEX_BITS) - _LEAST_ROOT
"""Where the gains of the int8 output begin; those of the int16 output are behind them."""


CONSTANTS = (
    *("one", "two", "eight", "last_bit", "first_exponent", "x0100", "x4000", "x8000"),
    *("word_bytes", "roots", "gains8", "gains16", "record_end", "no_bias", "zero"),
)
"""Registers that nothing writes. The last two are the bias of a scale record, which ends with the
first two of softmax."""
SOFTMAX = (
    *("multiplier", "selector", "bound", "causal", "record", "count", "top", "searching"),
    *("sum_low", "sum_high", "rest_low", "rest_high", "quotient_low", "quotient_high", "turns"),
)
NORM = (
    *("minus_low", "minus_high", "total_low", "total_high", "summing", "measuring"),
    *("y_low", "y_high", "root", "half_low", "half_high", "by16", "by8", "by4"),
)
SHARED = (
    *("rows", "length", "source", "source_stride", "stride8", "stride16", "low", "high"),
    *("j", "end", "x", "t", "u", "offset"),
)
"""Registers of every instruction."""
SHORT_LIVED = (("d0", "d1", "d2", "d3"), ("product", "normal", "bias_low", "bias_high"))
"""Registers of the norm before and after its constants are there: they share their places."""
BANKS = ("goal", "gain", "round_low", "round_high", "more8", "more4", "limit", "wanted")
"""Registers of what is written: of bytes, and, while `wide`, of pairs of them. `limit` is never
written."""


def registers() -> dict[str, int]:
    """The place of each register."""
    names = [*CONSTANTS]
    first = NOTHING + 1
    places = {name: first + i for i, name in enumerate(names)}
    first += len(names)
    own = max(len(SOFTMAX), len(NORM) + len(SHORT_LIVED[0]))
    for group in (SOFTMAX, *((*NORM, *short) for short in SHORT_LIVED)):
        places |= {name: first + i for i, name in enumerate(group)}
    places |= {name: first + own + i for i, name in enumerate(SHARED)}
    return {**places, **{name: BANKED + i for i, name in enumerate(BANKS)}}


def memory_depth(config: AcceleratorConfig) -> int:
    """Words of the processor's memory: registers, roots, gains."""
    return 1 << (_GAINS + 2 * GAIN_WORDS * config.norm_length - 1).bit_length()


def memory_contents(config: AcceleratorConfig) -> list[int]:
    """What the memory holds at first. The program writes neither constants nor limits nor roots, so
    they survive a reset."""
    contents = [0] * memory_depth(config)
    places = registers()
    for name, value in (
        ("one", 1),
        ("two", 2),
        ("eight", 8),
        ("last_bit", 31),
        ("first_exponent", 31 + 16 - NORM_FRACTION),
        ("x0100", 0x0100),
        ("x4000", 0x4000),
        ("x8000", 0x8000),
        ("word_bytes", config.word_bytes),
        ("roots", _ROOTS - _LEAST_ROOT),
        ("gains8", _GAINS),
        ("gains16", _GAINS + GAIN_WORDS * config.norm_length),
        ("record_end", places["no_bias"] + 4),
    ):
        contents[places[name]] = value
    contents[places["limit"]] = 1 << 7
    contents[places["limit"] + len(BANKS)] = 1 << config.residual_bits - 1
    roots = rsqrt_table()[_LEAST_ROOT:]
    contents[_ROOTS : _ROOTS + len(roots)] = [int(root) for root in roots]
    return contents


def program(config: AcceleratorConfig) -> list[int]:
    """The processor's program."""
    a = Steps(registers(), config)
    do = a.do
    a.label("idle")
    do(Op.NOP, action=Action.IDLE)
    _fields(a)
    # From its lowest bit on, the opcode: 7 softmax, 8 norm, 9 and 10 the tables.
    do(Op.SHIFT)
    a.when(Condition.ODD, "odd")
    do(Op.NOP)
    a.when(Condition.ODD, "gains")
    a.jump("norm")
    a.label("odd")
    do(Op.NOP)
    a.when(Condition.ODD, "softmax")
    _exp_table(a)
    _gains(a)
    assemble_softmax(a)
    assemble_norm(a)
    a.label("finish_wide")
    do(Op.NOP, action=Action.SWAP)
    a.label("finish")
    do(Op.NOP, action=Action.DONE)
    a.jump("idle")
    return a.assemble()


def _fields(a: Steps) -> None:
    """All fields, whichever the instruction has; A = word 0. Ends it if word 1's size is 0."""
    a.field(1, 0, to="rows")
    a.unless_zero("fields")
    a.jump("finish")
    a.label("fields")
    a.field(1, 1, to="offset")
    a.field(2, 0, to="length")
    a.field(3, 0, to="bound")
    a.field(3, 1, to="causal")
    a.field(4, 0, to="source")
    a.field(4, 1, to="source_stride")
    a.field(5, 0, to="goal")
    a.field(5, 1, to="stride8")
    a.do(Op.NOP, action=Action.SWAP)
    a.field(6, 0, to="goal")
    a.field(6, 1, to="stride16")
    a.do(Op.NOP, action=Action.SWAP)
    a.field(7, 0, to="low")
    a.field(7, 1, to="high")
    a.field(0, 0)


def _exp_table(a: Steps) -> None:
    """EXP_TABLE: the entry of a score d below the largest goes to place -d."""
    do = a.do
    do(Op.LOAD, "zero", to="u")
    do(Op.NOP, to="j")
    a.label("entry")
    a.get()
    do(Op.LOAD_Q, "x")
    do(Op.LOAD_U, "u")
    do(Op.MOVE_Q, action=Action.FILL)
    do(Op.SUBTRACT, "x0100", to="u")
    a.advance("one")
    do(Op.COMPARE, "x0100")
    a.when(Condition.CARRY, "finish")
    a.jump("entry")


def _gains(a: Steps) -> None:
    """NORM_GAIN: of each record the gain and both halves of the bias. The zeros in between are
    written and overwritten."""
    do = a.do
    a.label("gains")
    do(Op.LOAD_U, "offset")
    a.repeat(Op.SHIFT, times=8)
    do(Op.LOAD_U, "gains8", to="u")
    a.when(Condition.ODD, "wide_gains")
    a.jump("fill_gains")
    a.label("wide_gains")
    do(Op.LOAD_U, "gains16", to="u")
    a.label("fill_gains")
    do(Op.LOAD, "zero", to="j")
    do(Op.NOP, action=Action.SWAP)
    a.label("half")
    a.get()
    do(Op.LOAD_Q, "x")
    do(Op.LOAD_U, "u")
    do(Op.MOVE_Q, action=Action.POKE)
    # Which half of the record it was: 0, 2, 4 or 6.
    do(Op.LOAD_U, "j")
    do(Op.SHIFT)
    do(Op.SHIFT)
    a.when(Condition.ODD, "odd_half")
    do(Op.COMPARE, "zero")
    a.jump("kept")
    a.label("odd_half")
    do(Op.COMPARE, "zero")
    a.when(Condition.ODD, "last_half")
    a.jump("next_half")
    a.label("last_half")
    do(Op.LOAD_U, "rows")
    do(Op.SUBTRACT, "one", to="rows")
    do(Op.COMPARE, "one")
    a.label("kept")
    do(Op.LOAD_U, "u")
    do(Op.ADD, "one", to="u")
    a.label("next_half")
    a.advance("two")
    a.when(Condition.CARRY, "half")
    a.jump("finish_wide")
