"""The control and status registers, and the codes they carry."""

import enum

VERSION = 1
"""Version of the instruction set and register map; hardware, image and host must agree."""
IDENTITY = 0x47460000 | VERSION
"""What the IDENTITY register reads."""


class Register(enum.IntEnum):
    """Word addresses of the 32-bit registers (6-bit address). Those marked W are written; all but
    those marked WO read what they hold, these read 0."""

    IDENTITY = 0
    CONFIG_HASH = 1
    CONTROL = 2
    """WO: bit 0 starts the program, bit 1 stops it and clears an error."""
    STATUS = 3
    """Bit 0 running, bit 1 done, bit 2 error, bits 4-7 `ErrorCode`, bits 8-10 `Engine`."""
    ERROR_PC = 4
    """Byte address of the instruction in error, relative to the program's first."""
    PROGRAM = 5
    """W: byte address of the program, a multiple of 32: in the DRAM window, or in local memory
    without DRAM. Of this and of the window, bits beyond the config's dram_mib are dropped."""
    LENGTH = 6
    """WO: bits 0-11 the runtime length of the sample in bits 16-19."""
    WINDOW_BASE = 7
    """WO: first byte of the DRAM window, a multiple of 32; every DRAM address of the program is
    relative to it."""
    WINDOW_SIZE = 8
    """WO: bytes of the DRAM window."""
    CYCLES = 9
    """Cycles of the last run, from start to done, low 32 bits."""
    COUNTER_SELECT = 10
    """W: which performance counter COUNTER reads."""
    COUNTER = 11
    """The selected performance counter of the last run. Valid two cycles after COUNTER_SELECT."""
    LOCAL_ADDRESS = 12
    """W: byte address (multiple of 4) in local memory; advances by 4 after each LOCAL_DATA."""
    LOCAL_DATA = 13
    """W: 32 bits of local memory at LOCAL_ADDRESS; only where DRAM is not read-write."""


def length_word(sample: int, length: int) -> int:
    """What is written to LENGTH to give a sample of the batch its runtime length."""
    return sample << 16 | length


class ErrorCode(enum.IntEnum):
    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    """An opcode that does not exist, or a size beyond what its engine holds."""
    LOCAL_ADDRESS = 2
    """An access beyond local memory."""
    DRAM_ADDRESS = 3
    """An access outside the DRAM window."""
    WATCHDOG = 4
    """No progress for watchdog_cycles: a stuck semaphore, or memory that does not answer."""
    STOPPED = 5
    """The host stopped the program."""


class Counter(enum.IntEnum):
    """Performance counters, 32 bits each, of the last run."""

    DMA_BUSY = 0
    LOAD_A_BUSY = 1
    LOAD_B_BUSY = 2
    LOAD_P_BUSY = 3
    EPILOGUE_BUSY = 4
    VECTOR_BUSY = 5
    ARRAY_BUSY = 6
    """Cycles in which the array takes a step: rows*cols*lanes products, padding included."""
    ARRAY_WAIT_A = 7
    """Cycles in which the array has an instruction and waits for A; so for the next two."""
    ARRAY_WAIT_B = 8
    ARRAY_WAIT_DRAIN = 9
    DMA_SEMAPHORE = 10
    """Cycles in which the engine has nothing to do but an instruction that waits for tokens; so for
    the next two."""
    EPILOGUE_SEMAPHORE = 11
    VECTOR_SEMAPHORE = 12
    DRAM_READ = 13
    """Beats read from external memory, instructions included."""
    DRAM_WRITE = 14
