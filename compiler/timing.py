"""How long the engines take: the latencies of the hardware, each in one place.

Cycles as seen in RTL simulation; the cycle model and the scheduler build on them.
"""

from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Format, Instruction, Opcode

DISPATCH = {engines: 44 + 12 * (engines - 1) for engines in (1, 2, 3)}
"""Cycles in which the sequencer hands on an instruction, by the engines that it goes to."""
FETCH_INSTRUCTIONS = 4
"""Instructions that one burst of the fetch brings."""
LOAD_INSTRUCTION = 16
"""Cycles from the queue to the engine."""
NEXT_INSTRUCTION = 4
"""Cycles from the end of an instruction to the start of the engine's next one, if it is held ready
and its tokens are there."""
LOADER_LATENCY = 4
"""Cycles from a loader's start to its first word in the ring, beyond that word's own."""
PARAMETER_LATENCY = 9
"""The same for scale records."""
PARAMETER_CYCLES = 3
"""Cycles from a word of scale records to the next."""
ARRAY_LATENCY = 14
"""Cycles from the start of a tile to the time when its sums can reach the epilogue, beyond its
steps."""
EPILOGUE_LATENCY = 24
"""Cycles from the last column that the epilogue takes to its last write."""
EPILOGUE_START = 12
"""Cycles from the epilogue's start to its first column."""
SERIAL_OUTPUT = 19
"""Cycles from an output to the next in an epilogue without multipliers; what is added to these:"""
SERIAL_INT32, SERIAL_RESIDUAL, SERIAL_ADDEND = 4, 4, 15
DMA_START = 7
"""Cycles from the start of a transfer to its first burst."""
DMA_ROW = 6
"""Cycles from a row's last burst to the next row's first, at least."""
DMA_STORE_ROW = 49
"""Cycles from the end of a row on the bus to the next row's first burst, of a store: words of local
memory are read in between."""
DMA_LOAD_LATENCY = 10
"""Cycles from a load's last beat on the bus to its end."""
DMA_STORE_LATENCY = 8
"""Cycles from a store's last beat to its end."""
DMA_STORE_START = 12
"""Cycles from a store's start to its first burst: a word of local memory is read first."""
SOFTMAX_ROW = 43
"""Least cycles between two rows of softmax: its division."""
SOFTMAX_GAP = 18
"""Cycles between two rows of softmax beyond the passing of one."""
SOFTMAX_LATENCY = 36
"""Cycles of a softmax instruction beyond its rows and the filling and draining of one each."""
NORM_ROW = 204
"""Least cycles between two rows of a norm: its reciprocal root."""
NORM_GAP = 49
"""Cycles between two rows of a norm beyond the passing of one."""
NORM_LATENCY = 37
"""Cycles of a norm instruction beyond its rows and the filling and draining of one."""
TABLE_CYCLES = {Opcode.NORM_GAIN: 3, Opcode.EXP_TABLE: 1, Opcode.ACTIVATION_TABLE: 1}
"""Cycles from an entry of a table to the next."""
TABLE_LATENCY = {Opcode.NORM_GAIN: 17, Opcode.EXP_TABLE: 49, Opcode.ACTIVATION_TABLE: 24}
"""Cycles of an instruction that fills a table, beyond its entries."""


def next_cycles(config: AcceleratorConfig) -> int:
    """Cycles from the end of an instruction to the start of the engine's next one, at least."""
    return NEXT_INSTRUCTION if config.prefetch else NEXT_INSTRUCTION + LOAD_INSTRUCTION


def tile_cycles(config: AcceleratorConfig, k: int) -> int:
    """Cycles that the array takes for a tile with a contraction of k elements."""
    return max(words_of(k, 1, config.lanes), config.cols)


def epilogue_tile_cycles(config: AcceleratorConfig, gemm: Instruction) -> int:
    """Cycles that the epilogue takes for a tile of the instruction."""
    wide = gemm["format"] == Format.INT32
    if config.multipliers == "serial":
        output = SERIAL_OUTPUT + SERIAL_INT32 * wide
        output += SERIAL_RESIDUAL * gemm["residual"] + SERIAL_ADDEND * gemm["addend"]
    else:
        output = 2 if wide else 1
    return config.rows * config.cols // config.epilogue_lanes * output


def softmax_row_cycles(config: AcceleratorConfig, length: int) -> int:
    """Cycles from a row of softmax to the next."""
    return max(_softmax_pass(config, length) + SOFTMAX_GAP, SOFTMAX_ROW)


def softmax_cycles(config: AcceleratorConfig, rows: int, length: int) -> int:
    """Cycles of a softmax instruction."""
    row = softmax_row_cycles(config, length)
    return rows * row + 2 * _softmax_pass(config, length) + SOFTMAX_LATENCY


def _softmax_pass(config: AcceleratorConfig, length: int) -> int:
    """Cycles in which the scores of a row pass."""
    return words_of(length, 1, config.word_bytes) * (config.word_bytes // config.softmax_lanes)


def norm_row_cycles(config: AcceleratorConfig, channels: int) -> int:
    """Cycles from a row of a norm to the next."""
    return max(_norm_pass(config, channels) + NORM_GAP, NORM_ROW)


def norm_cycles(config: AcceleratorConfig, rows: int, channels: int) -> int:
    """Cycles of a norm instruction."""
    row = norm_row_cycles(config, channels)
    return rows * row + 2 * _norm_pass(config, channels) + NORM_LATENCY


def _norm_pass(config: AcceleratorConfig, channels: int) -> int:
    """Cycles in which the channels of a row pass."""
    words = words_of(channels, 2, config.word_bytes)
    return words * (config.word_bytes // 2 // config.norm_lanes)


def table_cycles(opcode: Opcode, count: int) -> int:
    """Cycles to fill a table."""
    return count * TABLE_CYCLES[opcode] + TABLE_LATENCY[opcode]
