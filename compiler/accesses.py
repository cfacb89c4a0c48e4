"""Which words of local memory an instruction reads and writes, engine by engine."""

from dataclasses import dataclass

import numpy as np

from gateformer.compiler.layout import words_of
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Instruction, Opcode

_FORMAT_BYTES = {Format.INT8: 1, Format.INT16: 2, Format.INT32: 4}


@dataclass(frozen=True)
class Access:
    """Word addresses that one engine reads and writes for one instruction."""

    engine: Engine
    reads: np.ndarray
    writes: np.ndarray


_NONE = np.zeros(0, np.int64)


def _block(address: int, stride: int, rows: int, words: int) -> np.ndarray:
    """Addresses of `rows` rows of `words` words."""
    if rows <= 0 or words <= 0:
        return _NONE
    return (address + np.arange(rows)[:, None] * stride + np.arange(words)).ravel()


def accesses(config: AcceleratorConfig, instruction: Instruction) -> tuple[Access, ...]:
    """The accesses of an instruction at its full sizes (a runtime length only removes some)."""
    i = instruction
    word = config.word_bytes

    def words(elements: int, size: int) -> int:
        return words_of(elements, size, word)

    match i.opcode:
        case Opcode.DMA_LOAD:
            block = _block(i["local_address"], i["local_stride"], i["rows"], i["words"])
            return (Access(Engine.DMA, _NONE, block),)
        case Opcode.DMA_STORE:
            block = _block(i["local_address"], i["local_stride"], i["rows"], i["words"])
            return (Access(Engine.DMA, block, _NONE),)
        case Opcode.LOAD_B:
            block = _block(i["b_address"], i["b_stride"], i["n"], words(i["k"], 1))
            return (Access(Engine.LOAD_B, block, _NONE),)
        case Opcode.LOAD_P:
            block = _block(i["p_address"], 0, 1, words(i["count"], 8))
            return (Access(Engine.LOAD_P, block, _NONE),)
        case Opcode.GEMM:
            m, n = i["m"], i["n"]
            a = _block(i["a_address"], i["a_stride"], m, words(i["k"], 1))
            size = _FORMAT_BYTES[Format(i["format"])]
            out = _block(i["out_address"], i["out_stride"], m, words(n, size))
            reads = [_NONE]
            if i["residual"]:
                reads.append(_block(i["residual_address"], i["residual_stride"], m, words(n, 2)))
            if i["addend"]:
                reads.append(_block(i["addend_address"], i["addend_stride"], m, words(n, 4)))
            return (
                Access(Engine.LOAD_A, a, _NONE),
                Access(Engine.EPILOGUE, np.concatenate(reads), out),
            )
        case Opcode.ACTIVATION_TABLE:
            block = _block(i["table_address"], 0, 1, words(i["count"], 1))
            return (Access(Engine.EPILOGUE, block, _NONE),)
        case Opcode.SOFTMAX:
            rows, row_words = i["rows"], words(i["length"], 1)
            writes = np.concatenate(
                [
                    _block(i["target_address"], i["target_stride"], rows, row_words),
                    _block(i["record_address"], 0, 1, words(rows, 8)),
                ]
            )
            reads_ = _block(i["source_address"], i["source_stride"], rows, row_words)
            return (Access(Engine.VECTOR, reads_, writes),)
        case Opcode.NORM:
            rows, channels = i["rows"], i["channels"]
            targets = [_NONE]
            if i["write8"]:
                targets.append(
                    _block(i["target8_address"], i["target8_stride"], rows, words(channels, 1))
                )
            if i["write16"]:
                targets.append(
                    _block(i["target16_address"], i["target16_stride"], rows, words(channels, 2))
                )
            source = _block(i["source_address"], i["source_stride"], rows, words(channels, 2))
            return (Access(Engine.VECTOR, source, np.concatenate(targets)),)
        case Opcode.EXP_TABLE:
            block = _block(i["table_address"], 0, 1, words(i["count"], 1))
            return (Access(Engine.VECTOR, block, _NONE),)
        case Opcode.NORM_GAIN:
            block = _block(i["gain_address"], 0, 1, words(i["count"], 8))
            return (Access(Engine.VECTOR, block, _NONE),)
        case Opcode.HALT:
            return ()
