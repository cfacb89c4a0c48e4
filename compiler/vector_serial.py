"""How long a vector engine without multipliers takes: a processor that handles one score or code at
a time.

Cycles as seen in RTL simulation, for words of 8 bytes and a local memory with one port; others take
some more. What a division or a mantissa takes depends on numbers that the compiler does not know;
these are what is usual.
"""

from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode

START = 220
"""Cycles in which the instruction is read."""
SCORE = 37
"""Cycles of a score: in the search for the largest one, and for its numerator."""
PAD = 12
"""Cycles of a byte behind a row."""
SOFTMAX_ROW = 640
"""Cycles of a row of softmax beyond its scores: its division."""
CODE = 194
"""Cycles of a code: for the sum, the variance and the normalized value."""
OUTPUT = 63
"""Cycles of each output of a code."""
NORM_ROW = 170
"""Cycles of a row of a norm beyond its codes."""
ENTRY = {Opcode.NORM_GAIN: 86, Opcode.EXP_TABLE: 17}
"""Cycles of an entry of a table."""


def softmax_row_cycles(config: AcceleratorConfig, length: int) -> int:
    """Cycles of a row of softmax."""
    pads = words_of(length, 1, config.word_bytes) * config.word_bytes - length
    return (SCORE + 2 * _read(config)) * length + PAD * pads + SOFTMAX_ROW


def softmax_cycles(config: AcceleratorConfig, rows: int, length: int) -> int:
    """Cycles of a softmax instruction."""
    return START + rows * softmax_row_cycles(config, length)


def norm_row_cycles(config: AcceleratorConfig, channels: int, outputs: int) -> int:
    """Cycles of a row of a norm."""
    code = CODE + 3 * _read(config) + (OUTPUT + _locate(config)) * outputs
    return code * channels + NORM_ROW


def norm_cycles(config: AcceleratorConfig, rows: int, channels: int, outputs: int) -> int:
    """Cycles of a norm instruction."""
    return START + rows * norm_row_cycles(config, channels, outputs)


def table_cycles(config: AcceleratorConfig, opcode: Opcode, count: int) -> int:
    """Cycles to fill a table of the vector engine."""
    reads = 4 if opcode is Opcode.NORM_GAIN else 1
    return START + (ENTRY[opcode] + reads * _read(config)) * count


def _locate(config: AcceleratorConfig) -> int:
    """Cycles that an address takes beyond those in words of 8 bytes."""
    return (config.word_bytes - 1).bit_length() - 2 if config.word_bytes > 8 else 0


def _read(config: AcceleratorConfig) -> int:
    """Cycles that a read takes beyond those of words of 8 bytes through one port."""
    return _locate(config) + (4 if config.memory_ports == 2 else 0)
