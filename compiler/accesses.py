"""Which words of local memory an instruction reads and writes, engine by engine."""

from dataclasses import dataclass

import numpy as np

from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Instruction, Opcode

_FORMAT_BYTES = {Format.INT8: 1, Format.INT16: 2, Format.INT32: 4}


@dataclass(frozen=True)
class Block:
    """`rows` rows of `words` words of local memory, `stride` words apart."""

    address: int
    stride: int
    rows: int
    words: int

    def addresses(self) -> np.ndarray:
        """Every word's address."""
        rows = self.address + np.arange(self.rows)[:, None] * self.stride
        return (rows + np.arange(self.words)).ravel()


@dataclass(frozen=True)
class Access:
    """Blocks that one engine reads and writes for one instruction; none is empty."""

    engine: Engine
    reads: tuple[Block, ...]
    writes: tuple[Block, ...]


def _blocks(*blocks: tuple[int, int, int, int]) -> tuple[Block, ...]:
    """Blocks of (address, stride, rows, words) that are not empty; without gaps one row."""
    result = []
    for address, stride, rows, words in blocks:
        if rows > 0 and words > 0:
            dense = rows == 1 or stride == words
            result.append(
                Block(address, rows * words, 1, rows * words)
                if dense
                else Block(address, stride, rows, words)
            )
    return tuple(result)


def accesses(config: AcceleratorConfig, instruction: Instruction) -> tuple[Access, ...]:
    """The accesses of an instruction at its full sizes (a runtime length only removes some)."""
    i = instruction
    word = config.word_bytes

    def words(elements: int, size: int) -> int:
        return words_of(elements, size, word)

    match i.opcode:
        case Opcode.DMA_LOAD:
            block = (i["local_address"], i["local_stride"], i["rows"], i["words"])
            return (Access(Engine.DMA, (), _blocks(block)),)
        case Opcode.DMA_STORE:
            block = (i["local_address"], i["local_stride"], i["rows"], i["words"])
            return (Access(Engine.DMA, _blocks(block), ()),)
        case Opcode.LOAD_B:
            block = (i["b_address"], i["b_stride"], i["n"], words(i["k"], 1))
            return (Access(Engine.LOAD_B, _blocks(block), ()),)
        case Opcode.LOAD_P:
            block = (i["p_address"], 0, 1, words(i["count"], 8))
            return (Access(Engine.LOAD_P, _blocks(block), ()),)
        case Opcode.GEMM:
            m, n = i["m"], i["n"]
            a = (i["a_address"], i["a_stride"], m, words(i["k"], 1))
            size = _FORMAT_BYTES[Format(i["format"])]
            out = (i["out_address"], i["out_stride"], m, words(n, size))
            reads = []
            if i["residual"]:
                reads.append((i["residual_address"], i["residual_stride"], m, words(n, 2)))
            if i["addend"]:
                reads.append((i["addend_address"], i["addend_stride"], m, words(n, 4)))
            return (
                Access(Engine.LOAD_A, _blocks(a), ()),
                Access(Engine.EPILOGUE, _blocks(*reads), _blocks(out)),
            )
        case Opcode.ACTIVATION_TABLE:
            block = (i["table_address"], 0, 1, words(i["count"], 1))
            return (Access(Engine.EPILOGUE, _blocks(block), ()),)
        case Opcode.SOFTMAX:
            rows, row_words = i["rows"], words(i["length"], 1)
            source = (i["source_address"], i["source_stride"], rows, row_words)
            target = (i["target_address"], i["target_stride"], rows, row_words)
            record = (i["record_address"], 0, 1, words(rows, 8))
            return (Access(Engine.VECTOR, _blocks(source), _blocks(target, record)),)
        case Opcode.NORM:
            rows, channels = i["rows"], i["channels"]
            targets = []
            if i["write8"]:
                targets.append(
                    (i["target8_address"], i["target8_stride"], rows, words(channels, 1))
                )
            if i["write16"]:
                targets.append(
                    (i["target16_address"], i["target16_stride"], rows, words(channels, 2))
                )
            source = (i["source_address"], i["source_stride"], rows, words(channels, 2))
            return (Access(Engine.VECTOR, _blocks(source), _blocks(*targets)),)
        case Opcode.EXP_TABLE:
            block = (i["table_address"], 0, 1, words(i["count"], 1))
            return (Access(Engine.VECTOR, _blocks(block), ()),)
        case Opcode.NORM_GAIN:
            block = (i["gain_address"], 0, 1, words(i["count"], 8))
            return (Access(Engine.VECTOR, _blocks(block), ()),)
        case Opcode.HALT:
            return ()
