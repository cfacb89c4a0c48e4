"""The instruction set: one definition for encoder, hardware, disassembler and docs/isa.md.

An instruction is eight 32-bit words, little-endian. Word 0 holds the opcode and, for every engine
that the instruction goes to, the semaphores it waits for and those it signals. Words 1, 2 and 3
are *size words* in every instruction: a size, and optionally an offset into the runtime length, so
that the sequencer can shorten any loop without knowing what it means. Local addresses and strides
count words of local memory; DRAM addresses and strides count bytes.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gateformer.spec.errors import ImageError

WORDS = 8
"""32-bit words in an instruction."""
SEMAPHORE_MAX = 15
"""Largest count of a semaphore; a signal waits while the counter stands there."""
SAMPLE_BITS = 4
"""Bits of the number of a sample in its batch."""


class Engine(enum.IntEnum):
    """The engines that run on their own. The first six own semaphores."""

    DMA = 0
    LOAD_A = 1
    LOAD_B = 2
    LOAD_P = 3
    EPILOGUE = 4
    VECTOR = 5
    ARRAY = 6


SYNC_ENGINES = tuple(Engine)[:6]
"""Engines with semaphores; bit i of a wait or signal mask is engine i. A wait takes one token from
the semaphore (that engine -> this engine), a signal adds one to (this engine -> that engine)."""
LOADERS = (Engine.LOAD_A, Engine.LOAD_B, Engine.LOAD_P)


def semaphore_exists(producer: Engine, consumer: Engine) -> bool:
    """Whether the pair has a counter: loaders write no memory, so they never order each other."""
    return producer != consumer and not (producer in LOADERS and consumer in LOADERS)


class Opcode(enum.IntEnum):
    HALT = 0
    DMA_LOAD = 1
    DMA_STORE = 2
    LOAD_B = 3
    LOAD_P = 4
    GEMM = 5
    ACTIVATION_TABLE = 6
    SOFTMAX = 7
    NORM = 8
    EXP_TABLE = 9
    NORM_GAIN = 10


class Format(enum.IntEnum):
    """What the epilogue writes."""

    INT8 = 0
    INT16 = 1
    INT32 = 2


@dataclass(frozen=True)
class Field:
    """`width` bits at bit `low` of word `word`."""

    name: str
    word: int
    low: int
    width: int
    doc: str

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1


def _size(word: int, name: str, doc: str) -> tuple[Field, ...]:
    return (
        Field(name, word, 0, 12, doc),
        Field(f"{name}_offset", word, 12, 12, f"runtime length at which `{name}` starts to count"),
        Field(f"{name}_dynamic", word, 31, 1, f"1: `{name}` is cut to the runtime length"),
    )


def _address(word: int, name: str, doc: str) -> tuple[Field, ...]:
    return (
        Field(f"{name}_address", word, 0, 16, f"first word of {doc}"),
        Field(f"{name}_stride", word, 16, 16, f"words from one row of {doc} to the next"),
    )


_OPCODE = Field("opcode", 0, 0, 4, "what to do")
_SAMPLE = Field("sample", 0, 28, SAMPLE_BITS, "the sample whose length cuts the dynamic sizes")
_SYNC = (
    Field("wait", 0, 4, 6, "engines of which one token each is awaited before the start"),
    Field("signal", 0, 10, 6, "engines that get a token after the last write"),
)
_SYNC_EPILOGUE = (
    Field("epilogue_wait", 0, 16, 6, "the same for the epilogue (`wait` is LOAD_A's)"),
    Field("epilogue_signal", 0, 22, 6, "the same for the epilogue (`signal` is LOAD_A's)"),
)


@dataclass(frozen=True)
class InstructionFormat:
    """The fields of one opcode and the engines that receive it."""

    opcode: Opcode
    engines: tuple[Engine, ...]
    fields: tuple[Field, ...]
    doc: str

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.fields}


_DMA_FIELDS = (
    _OPCODE,
    *_SYNC,
    _SAMPLE,
    *_size(1, "rows", "rows to move"),
    *_size(2, "words", "words of a row"),
    *_address(4, "local", "the block in local memory"),
    Field("dram_address", 5, 0, 32, "first byte in the DRAM window, a multiple of word_bytes"),
    Field("dram_stride", 6, 0, 32, "bytes from one row in DRAM to the next"),
)

FORMATS: Mapping[Opcode, InstructionFormat] = {
    f.opcode: f
    for f in (
        InstructionFormat(
            Opcode.HALT, (), (_OPCODE,), "Ends the program once every engine has finished."
        ),
        InstructionFormat(
            Opcode.DMA_LOAD, (Engine.DMA,), _DMA_FIELDS, "Copies a block from DRAM to local memory."
        ),
        InstructionFormat(
            Opcode.DMA_STORE,
            (Engine.DMA,),
            _DMA_FIELDS,
            "Copies a block from local memory to DRAM; complete when DRAM has acknowledged it.",
        ),
        InstructionFormat(
            Opcode.LOAD_B,
            (Engine.LOAD_B,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "n", "rows of B, one for each output column"),
                *_size(3, "k", "elements of a row"),
                *_address(4, "b", "B"),
            ),
            "Appends rows of B to the feeder's B ring. Row r goes to column bank r mod cols; n of "
            "every LOAD_B of a block but the last is a multiple of cols.",
        ),
        InstructionFormat(
            Opcode.LOAD_P,
            (Engine.LOAD_P,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "count", "8-byte scale records, contiguous"),
                *_address(4, "p", "the records"),
            ),
            "Appends scale records to the epilogue's parameter ring.",
        ),
        InstructionFormat(
            Opcode.GEMM,
            (Engine.LOAD_A, Engine.ARRAY, Engine.EPILOGUE),
            (
                _OPCODE,
                *_SYNC,
                *_SYNC_EPILOGUE,
                _SAMPLE,
                *_size(1, "m", "rows of A and of the output"),
                Field("format", 1, 24, 2, "0: int8, 1: int16, 2: int32 (bias and addend only)"),
                Field("activation", 1, 26, 1, "1: through the activation unit (int8 output)"),
                Field("residual", 1, 27, 1, "1: add an int16 row block after scaling (int16)"),
                Field("addend", 1, 28, 1, "1: add an int32 row block to the sums before scaling"),
                Field("by_row", 1, 29, 1, "1: scale record m for output row m; 0: n for column n"),
                *_size(2, "n", "rows of B held in the ring, columns of the output"),
                Field("release_b", 2, 24, 1, "1: free the B block afterwards"),
                Field("release_p", 2, 25, 1, "1: free the scale records afterwards"),
                *_size(3, "k", "elements of the contraction"),
                *_address(4, "a", "A"),
                *_address(5, "out", "the output"),
                *_address(6, "residual", "the residual"),
                *_address(7, "addend", "the addend"),
            ),
            "OUT[i,j] = epilogue(sum_k A[i,k] * B[j,k]) with B the oldest block of the B ring and "
            "the oldest records of the parameter ring.",
        ),
        InstructionFormat(
            Opcode.ACTIVATION_TABLE,
            (Engine.EPILOGUE,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "count", "entries (bytes), a multiple of word_bytes"),
                *_address(4, "table", "the entries"),
            ),
            "Fills the activation unit: `count` int8 entries of the table, or the 24 bytes of the "
            "polynomial's parameters.",
        ),
        InstructionFormat(
            Opcode.SOFTMAX,
            (Engine.VECTOR,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "rows", "rows"),
                *_size(2, "length", "elements of a row"),
                *_size(3, "bound", "elements of row 0 that count; the others get 0"),
                Field("causal", 3, 24, 1, "1: every row counts one element more than the last"),
                *_address(4, "source", "the int8 scores"),
                *_address(5, "target", "the int8 numerators (0..127)"),
                Field("record_address", 6, 0, 16, "first word of the rows' 8-byte scale records"),
                Field("numerator", 7, 0, 32, "record scale = numerator / sum * 2**-28"),
            ),
            "Un-normalized softmax: numerators 0..127 and one scale record a row.",
        ),
        InstructionFormat(
            Opcode.NORM,
            (Engine.VECTOR,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "rows", "rows"),
                Field("write8", 1, 24, 1, "1: write the int8 output"),
                Field("write16", 1, 25, 1, "1: write the int16 output"),
                Field("shift8", 1, 26, 2, "right shift of the int8 output: 8, 12, 16 or 20"),
                Field("shift16", 1, 28, 2, "right shift of the int16 output: 8, 12, 16 or 20"),
                *_size(2, "channels", "elements of a row"),
                *_address(4, "source", "the int16 rows"),
                *_address(5, "target8", "the int8 output"),
                *_address(6, "target16", "the int16 output"),
                Field("epsilon", 7, 0, 32, "added to channels**2 * variance, in codes squared"),
            ),
            "LayerNorm of int16 rows with two outputs, each with its own gain and bias.",
        ),
        InstructionFormat(
            Opcode.EXP_TABLE,
            (Engine.VECTOR,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "count", "entries (bytes), always 256"),
                *_address(4, "table", "the entries"),
            ),
            "Fills softmax's table: entry d is the numerator of a score d below the row's largest.",
        ),
        InstructionFormat(
            Opcode.NORM_GAIN,
            (Engine.VECTOR,),
            (
                _OPCODE,
                *_SYNC,
                _SAMPLE,
                *_size(1, "count", "8-byte gain records, one for each channel"),
                Field("output16", 1, 24, 1, "0: gains of the int8 output, 1: of the int16 output"),
                *_address(4, "gain", "the records"),
            ),
            "Fills the norm unit's gains and biases of one output.",
        ),
    )
}

SIZE_WORDS = (1, 2, 3)


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction: an opcode and its fields; a field left out is 0."""

    opcode: Opcode
    values: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def encode(self) -> np.ndarray:
        """The eight words, uint32. Raises ValueError for a field that does not fit."""
        words = [0] * WORDS
        words[0] = int(self.opcode)
        fields = FORMATS[self.opcode].by_name
        for name, value in self.values.items():
            field = fields[name]
            if not 0 <= value <= field.mask:
                raise ValueError(
                    f"{self.opcode.name}.{name} = {value} does not fit {field.width} bits"
                )
            words[field.word] |= value << field.low
        return np.array(words, dtype="<u4")

    @classmethod
    def decode(cls, words: np.ndarray) -> "Instruction":
        """Raises ImageError for an opcode that does not exist."""
        number = int(words[0]) & 0xF
        if number not in FORMATS:
            raise ImageError(f"opcode {number} does not exist")
        form = FORMATS[Opcode(number)]
        values = {
            f.name: (int(words[f.word]) >> f.low) & f.mask for f in form.fields if f is not _OPCODE
        }
        return cls(form.opcode, values)

    def at_length(self, lengths: Sequence[int]) -> "Instruction":
        """The instruction as the engines see it once the sequencer has cut the dynamic sizes.

        lengths: the runtime length of every sample. A dynamic size becomes
        min(size, max(length - offset, 0)) with the length of the instruction's sample.
        """
        values = dict(self.values)
        length = lengths[values.get("sample", 0)]
        for name in self.values:
            if values.get(f"{name}_dynamic"):
                values[name] = min(values[name], max(length - values[f"{name}_offset"], 0))
        return Instruction(self.opcode, values)


def instruction(opcode: Opcode, **values: int) -> Instruction:
    """An instruction with every field present, those not named being 0."""
    fields = FORMATS[opcode].by_name
    unknown = set(values) - set(fields)
    if unknown:
        raise ValueError(f"{opcode.name} has no field {sorted(unknown)[0]!r}")
    return Instruction(opcode, {n: values.get(n, 0) for n in fields if n != "opcode"})
