"""How long the engines take: the latencies of the hardware, each in one place.

Cycles as seen in RTL simulation; the cycle model and the scheduler build on them.
"""

from gateformer.compiler import vector_serial
from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Opcode

FETCH_INSTRUCTIONS = 4
"""Instructions that one burst of the fetch brings."""
FETCH_START = 5
"""Cycles from the start of a program to the time when the fetch begins."""
FETCH_LATENCY = 10
"""Cycles from the time when the fetch has room, and its last burst is there, to the next burst."""
FETCH_WORD = 2
"""Cycles from the beats of an instruction's first word to its decoding."""
QUEUE_HELD = 2
"""Slots of an engine's queue that keep what is at the engine."""
LOAD_INSTRUCTION = 12
"""Cycles from the queue to the engine."""
LOAD_FURTHER = 18
"""Cycles from there to the next engine of the same instruction."""
NEXT_INSTRUCTION = 3
"""Cycles from the end of an instruction to the start of the engine's next one, if it is held ready
and its tokens are there."""
TOKEN = 5
"""Cycles from the end of an instruction to the start of one that awaits its token: the semaphores
are looked after in turns."""
SHORTEST_TILE = 3
"""Cycles of the array for a tile at least."""
SCHEDULE_INSTRUCTION = 45
"""Cycles from the end of an instruction to the start of the engine's next one without prefetch, if
no other engine is served between."""
LOADER_LATENCY = 5
"""Cycles of a loader's instruction beyond its words."""
PARAMETER_LATENCY = 9
"""The same for scale records."""
PARAMETER_CYCLES = 3
"""Cycles from a word of scale records to the next."""
EPILOGUE_LATENCY = 23
"""Cycles from the last column that the epilogue takes to its last write."""
OPERAND_LATENCY = 21
"""Cycles from the time when the epilogue asks for a word of a residual or addend to its use."""
OPERANDS = 16
"""Columns that may wait for such words at a time."""
EPILOGUE_START = 12
"""Cycles from the epilogue's start to its first column."""
SERIAL_OUTPUT = 19
"""Cycles from an output to the next in an epilogue without multipliers; what is added to these:"""
SERIAL_INT32, SERIAL_RESIDUAL, SERIAL_ADDEND = 4, 4, 15
SERIAL_PART = 2
"""The same, for each row of a tile of several: its outputs are a part of a word."""
SERIAL_TABLE = 9
"""Cycles from a byte of its activation's table to the next."""
DMA_START = 7
"""Cycles from the start of a load to its first burst."""
DMA_BURST = 3
"""Cycles from a load's burst to the next one in its row, at least."""
DMA_ROW = 7
"""Cycles from a row's last burst to the next row's first, at least."""
DMA_LOAD_LATENCY = 3
"""Cycles from the offer of a load's last beat to its end."""
DMA_STORE_READ = 12
"""Cycles from the last word that a store reads for a burst to that burst."""
DMA_STORE_LATENCY = 6
"""Cycles from a store's last beat to its end."""
SOFTMAX_ROW = 51
"""Least cycles between two rows of softmax: its division."""
SOFTMAX_GAP = 3
"""Cycles between two rows of softmax beyond the passing of one."""
SOFTMAX_LATENCY = 87
"""Cycles of a softmax instruction beyond its rows but one and the two passes of that one."""
NORM_CONSTANTS = 168
"""Cycles for the constants of a norm's row, beyond two for each bit of the longest row's index."""
NORM_NEXT = 12
"""Cycles from a row's constants to the start of the next row's, at least."""
NORM_TURNS_NEXT = 10
"""The same where several rows' constants are made at a time."""
NORM_TURNS_SUMS = 49
"""The same at least, beyond two for each bit of the longest row's index: a row's sums are read."""
NORM_TURNS_LATENCY = 1
"""Cycles that a row's constants wait there for their turn."""
NORM_GAP = 1
"""Cycles between two rows of a norm beyond the passing of one."""
NORM_LATENCY = 50
"""Cycles of a norm instruction beyond its rows but one and, of that one, constants and passes."""
TABLE_LATENCY = {Opcode.NORM_GAIN: 19, Opcode.EXP_TABLE: 19, Opcode.ACTIVATION_TABLE: 24}
"""Cycles of an instruction that fills a table, beyond its entries."""


def dispatch_cycles(config: AcceleratorConfig, engines: int) -> int:
    """Cycles in which the sequencer hands on an instruction that goes to so many engines.

    A size word takes six cycles, the first of all words four, another two, and each engine beyond
    the first one more; but words come no faster than the fetch joins them from beats.
    """
    bus, word, latency = config.bus_bytes, config.word_bytes, memory_latency(config)
    fetch = (latency + 3) * 4 // word + 1 if config.dram == "none" else max(4 // bus, 1) + 2
    if config.dram != "none" and bus > 4:
        fetch = 2
    more = engines - 1
    return max(4 + 2 * more, fetch) + 3 * max(6 + more, fetch) + 4 * max(2 + more, fetch)


def store_word_cycles(config: AcceleratorConfig) -> int:
    """Cycles from a word that a store reads of local memory to the next: those of its beats, and
    one more where a request that comes early would be taken too soon."""
    beats = config.word_bytes // config.bus_bytes
    return beats + (config.memory_ports == 1 or beats < 4)


def memory_latency(config: AcceleratorConfig) -> int:
    """Cycles from the taking of a read of local memory to its word."""
    return 6 if config.memory_ports == 2 else 2


def ring_latency(config: AcceleratorConfig) -> int:
    """Cycles from the end of a loader's instruction to the array's first step with its words."""
    return memory_latency(config) + (1 if config.memory_ports == 2 else 0)


def array_latency(config: AcceleratorConfig) -> int:
    """Cycles from the last step of a tile to its sums at the epilogue."""
    tree = 7 + (config.lanes.bit_length() - 1 if config.memory_ports == 2 else 0)
    return tree + config.rows + config.cols - 1


def next_cycles(config: AcceleratorConfig) -> int:
    """Cycles from the end of an instruction to the start of the engine's next one, at least."""
    return NEXT_INSTRUCTION if config.prefetch else SCHEDULE_INSTRUCTION


def tile_cycles(config: AcceleratorConfig, k: int) -> int:
    """Cycles that the array takes for a tile with a contraction of k elements."""
    return max(words_of(k, 1, config.lanes), config.cols, SHORTEST_TILE)


def epilogue_tile_cycles(
    config: AcceleratorConfig,
    *,
    columns: int,
    wide: bool = False,
    residual: bool = False,
    addend: bool = False,
    rows: int | None = None,
) -> int:
    """Cycles that the epilogue takes for a tile of a product with so many columns. wide: of INT32
    results. rows: of the tile, all where None."""
    rows = config.rows if rows is None else rows
    n, columns = columns, min(columns, config.cols)
    if config.multipliers == "serial":
        output = SERIAL_OUTPUT + SERIAL_INT32 * wide
        steps = columns * (output + SERIAL_RESIDUAL * residual + SERIAL_ADDEND * addend)
        return rows * (steps + SERIAL_PART * (config.rows > 1))
    # Steps of a set of rows: each of a column, or of the address of a word of one row. They go
    # beside each other, but addends come before residuals, and both before columns.
    lanes, output = config.epilogue_lanes, 2 if wide else 1
    if config.rows == lanes:
        # A set is a whole tile, and words go on from tile to tile.
        piece = min(config.word_bytes // (4 if addend or wide else 2 if residual else 1), n)
        visits = max(piece * output, (1 + residual + addend) * lanes, 2)
        steps = -(-columns * visits // piece)
    else:
        piece = config.word_bytes // 4 if addend else columns
        steps = 0
        for first in range(0, columns, piece):
            visits = min(piece, columns - first) * output
            words = 1 + residual if first == 0 or wide else 0
            if addend and residual:
                steps += lanes + max(visits, words * lanes)
            else:
                steps += max(visits, (words + addend) * lanes, 2)
        steps *= -(-rows // lanes)
    return max(steps, steps * OPERAND_LATENCY // OPERANDS) if residual or addend else steps


def softmax_row_cycles(config: AcceleratorConfig, length: int) -> int:
    """Cycles from a row of softmax to the next."""
    if config.multipliers == "serial":
        return vector_serial.softmax_row_cycles(config, length)
    return max(_softmax_pass(config, length) + SOFTMAX_GAP, SOFTMAX_ROW)


def softmax_cycles(config: AcceleratorConfig, rows: int, length: int) -> int:
    """Cycles of a softmax instruction."""
    if config.multipliers == "serial":
        return vector_serial.softmax_cycles(config, rows, length)
    following = (rows - 1) * softmax_row_cycles(config, length)
    return following + 2 * _softmax_pass(config, length) + SOFTMAX_LATENCY


def _softmax_pass(config: AcceleratorConfig, length: int) -> int:
    """Cycles in which the scores of a row pass."""
    return words_of(length, 1, config.word_bytes) * (config.word_bytes // config.softmax_lanes)


def norm_row_cycles(config: AcceleratorConfig, channels: int, outputs: int = 2) -> int:
    """Cycles from a row of a norm to the next, with one output or both."""
    if config.multipliers == "serial":
        return vector_serial.norm_row_cycles(config, channels, outputs)
    return max(_norm_pass(config, channels) + NORM_GAP, _norm_turn(config))


def norm_cycles(config: AcceleratorConfig, rows: int, channels: int, outputs: int = 2) -> int:
    """Cycles of a norm instruction."""
    if config.multipliers == "serial":
        return vector_serial.norm_cycles(config, rows, channels, outputs)
    following = (rows - 1) * norm_row_cycles(config, channels)
    constants = _norm_constants(config) + NORM_TURNS_LATENCY * (config.norm_constants > 1)
    return following + 2 * _norm_pass(config, channels) + constants + NORM_LATENCY


def _group_bytes(config: AcceleratorConfig) -> int:
    """Bytes of a group, see hw/vector_ports.py."""
    return min(8, max(4, config.softmax_lanes, 4 * config.norm_lanes))


def _norm_pass(config: AcceleratorConfig, channels: int) -> int:
    """Cycles in which the channels of a row pass."""
    interval = max(4 * config.norm_lanes // _group_bytes(config), 1)
    words = words_of(channels, 2, config.word_bytes)
    return words * (config.word_bytes // 2 // config.norm_lanes) * interval


def _norm_constants(config: AcceleratorConfig) -> int:
    """Cycles for the constants of a row."""
    return NORM_CONSTANTS + 2 * (config.norm_length - 1).bit_length()


def _norm_turn(config: AcceleratorConfig) -> int:
    """Cycles from the constants of a row to those of the next, at least."""
    cycles = _norm_constants(config)
    if config.norm_constants == 1:
        return cycles + NORM_NEXT
    sums = cycles - NORM_CONSTANTS + NORM_TURNS_SUMS
    return max(-(-(cycles + NORM_TURNS_NEXT) // config.norm_constants), sums)


def table_cycles(config: AcceleratorConfig, opcode: Opcode, count: int) -> int:
    """Cycles to fill a table."""
    if config.multipliers == "serial" and opcode in vector_serial.ENTRY:
        return vector_serial.table_cycles(config, opcode, count)
    if config.multipliers == "serial" and opcode is Opcode.ACTIVATION_TABLE:
        return count * SERIAL_TABLE + TABLE_LATENCY[opcode]
    # An entry is a byte, but a gain's, which takes a record of eight.
    cycles = 8 // _group_bytes(config) if opcode is Opcode.NORM_GAIN else 1
    return count * cycles + TABLE_LATENCY[opcode]
