"""How long a vector engine without multipliers takes: it passes on a group before it replays the
next one, and asks for a word when the one before is used up.

Cycles as seen in RTL simulation, for a local memory with one port and a lane of softmax.
"""

from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode

READ_WORD = 12
"""Cycles in which a word of scores, or of a table of bytes, passes on its first way."""
SOFTMAX_WORD = 50
"""Cycles in which a word of scores becomes numerators."""
SOFTMAX_GAP = 4
"""Cycles between two rows beyond the passing of one."""
SOFTMAX_ROW = 86
"""Least cycles between two rows of softmax: its division."""
SOFTMAX_LATENCY = 60
"""Cycles of a softmax instruction beyond its rows but one and the two passes of that one."""
NORM_SUM = 48
"""Cycles in which a code and its square are added to their sums."""
NORM_CODE = 152
"""Cycles in which a code becomes both outputs; 49 less for a single one."""
NORM_GAP = 3
"""Cycles between two rows beyond the passing of one and the constants of the next."""
NORM_LATENCY = 13
"""Cycles of a norm instruction beyond its rows but one and, of that one, constants and passes."""
TABLE_CYCLES = {Opcode.NORM_GAIN: 9, Opcode.EXP_TABLE: READ_WORD}
"""Cycles from a word of a table to the next."""
TABLE_LATENCY = {Opcode.NORM_GAIN: 10, Opcode.EXP_TABLE: 11}
"""Cycles of an instruction that fills a table, beyond its words."""


def softmax_row_cycles(config: AcceleratorConfig, length: int) -> int:
    """Cycles from a row of softmax to the next."""
    return max(SOFTMAX_WORD * words_of(length, 1, config.word_bytes) + SOFTMAX_GAP, SOFTMAX_ROW)


def softmax_first_cycles(config: AcceleratorConfig, length: int) -> int:
    """Cycles of a softmax of one row."""
    words = words_of(length, 1, config.word_bytes)
    return (READ_WORD + SOFTMAX_WORD) * words + SOFTMAX_LATENCY


def norm_row_cycles(config: AcceleratorConfig, channels: int, constants: int) -> int:
    """Cycles from a row of a norm to the next, with those for its constants."""
    return NORM_CODE * _codes(config, channels) + constants + NORM_GAP


def norm_first_cycles(config: AcceleratorConfig, channels: int, constants: int) -> int:
    """Cycles of a norm of one row."""
    return (NORM_SUM + NORM_CODE) * _codes(config, channels) + constants + NORM_LATENCY


def _codes(config: AcceleratorConfig, channels: int) -> int:
    """Codes of a row in whole words."""
    return words_of(channels, 2, config.word_bytes) * (config.word_bytes // 2)


def table_cycles(config: AcceleratorConfig, opcode: Opcode, count: int) -> int:
    """Cycles to fill a table of the vector engine."""
    entry = 8 if opcode is Opcode.NORM_GAIN else 1
    words = words_of(count, entry, config.word_bytes)
    return words * TABLE_CYCLES[opcode] + TABLE_LATENCY[opcode]
