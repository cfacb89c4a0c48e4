"""The program image: one file that carries a compiled model to golden model, simulator and board.

Layout, little-endian: a fixed header, a JSON description, the data. The CRC-32 in the header covers
everything behind the header's checksum field.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ImageError
from gateformer.spec.isa import WORDS, Instruction

MAGIC = b"GFPI"
FORMAT_VERSION = 2
_HEADER = struct.Struct("<4sIIIIII")
"""Magic, format version, checksum, config hash, bytes of: description, data, instructions."""
_CHECKED = 12
"""First byte that the checksum covers."""


@dataclass(frozen=True)
class Descriptor:
    """Where a matrix of the model's inputs or outputs lies, and what its codes mean.

    real value = scale * (code - zero). address: bytes, in the DRAM window or in local memory. Rows
    lie one after another; each segment of `segment` columns is padded to a word.
    """

    name: str
    rows: int
    cols: int
    segment: int
    kind: Literal["int8", "int16"]
    scale: float
    zero: int
    space: Literal["dram", "local"]
    address: int
    samples: int = 1
    """The rows fall into as many equal runs, one a sample of the batch."""
    row_token: int | None = None
    """The token that a sample's row 0 stands for, where a runtime length cuts the rows."""
    col_tokens: bool = False
    """Whether a runtime length cuts the columns."""


@dataclass(frozen=True)
class ProgramImage:
    """A program, its constants, and where its inputs and outputs lie.

    The data and, behind it, the instructions go to `data_address` (bytes, in DRAM or, without DRAM,
    in local memory). window_bytes: DRAM that the program uses. samples: how many make a batch.
    tokens: the most that a sample can have, and what its runtime length is without a shorter one;
    None where no runtime length cuts the program. least_tokens: the fewest. macs_of_length: the
    multiply-accumulates of the model's own products for a sample of n tokens, as the coefficients
    of 1, n and n**2.
    """

    config_hash: int
    data_address: int
    data: bytes
    instructions: tuple[Instruction, ...]
    window_bytes: int
    inputs: tuple[Descriptor, ...]
    outputs: tuple[Descriptor, ...]
    macs_of_length: tuple[int, int, int]
    samples: int = 1
    tokens: int | None = None
    least_tokens: int = 1

    @property
    def model_macs(self) -> int:
        """Multiply-accumulates of a whole batch at full length."""
        return self.macs([self.tokens or 1] * self.samples)

    def macs(self, lengths: Sequence[int]) -> int:
        """Multiply-accumulates of the model's own products for samples of these lengths."""
        constant, linear, square = self.macs_of_length
        return sum(constant + linear * n + square * n**2 for n in lengths if n)

    @property
    def program_address(self) -> int:
        """First byte of the first instruction."""
        return self.data_address + len(self.data)

    def instruction_bytes(self) -> bytes:
        return b"".join(i.encode().tobytes() for i in self.instructions)

    def check_config(self, config: AcceleratorConfig) -> None:
        """Raises ImageError when the image was made for other parameters."""
        if self.config_hash != config.hash:
            raise ImageError(
                f"the program was compiled for config hash {self.config_hash:08x}, but config "
                f"{config.name!r} has {config.hash:08x}: compile it again for this config"
            )

    def at_lengths(self, lengths: Sequence[int]) -> tuple[Instruction, ...]:
        """The instructions with dynamic sizes cut to the samples' runtime lengths."""
        return tuple(instruction.at_length(lengths) for instruction in self.instructions)

    def to_bytes(self) -> bytes:
        description = json.dumps(
            {
                "data_address": self.data_address,
                "window_bytes": self.window_bytes,
                "macs_of_length": self.macs_of_length,
                "samples": self.samples,
                "tokens": self.tokens,
                "least_tokens": self.least_tokens,
                "inputs": [asdict(d) for d in self.inputs],
                "outputs": [asdict(d) for d in self.outputs],
            },
            sort_keys=True,
        ).encode()
        code = self.instruction_bytes()
        sizes = (len(description), len(self.data), len(code))
        body = description + self.data + code
        tail = struct.pack("<IIII", self.config_hash, *sizes) + body
        return struct.pack("<4sII", MAGIC, FORMAT_VERSION, zlib.crc32(tail)) + tail

    @classmethod
    def from_bytes(cls, content: bytes, *, source: str = "program image") -> "ProgramImage":
        """Raises ImageError for a file that is not one, truncated, damaged, or of another
        version."""
        if len(content) < _HEADER.size or content[:4] != MAGIC:
            raise ImageError(f"{source} is not a gateformer program image")
        _, version, checksum, config_hash, *sizes = _HEADER.unpack_from(content)
        if version != FORMAT_VERSION:
            raise ImageError(
                f"{source} has format version {version}, this gateformer reads {FORMAT_VERSION}: "
                "compile the model again"
            )
        expected = _HEADER.size + sum(sizes)
        if len(content) != expected:
            raise ImageError(
                f"{source} is truncated or padded: {len(content)} bytes instead of {expected}"
            )
        if zlib.crc32(content[_CHECKED:]) != checksum:
            raise ImageError(f"{source} is damaged: its checksum does not match, copy it again")
        parts, at = [], _HEADER.size
        for size in sizes:
            parts.append(content[at : at + size])
            at += size
        try:
            return cls._from_parts(config_hash, *parts)
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{source} holds a malformed description: {error}") from None

    @classmethod
    def _from_parts(
        cls, config_hash: int, description: bytes, data: bytes, code: bytes
    ) -> "ProgramImage":
        record: dict[str, Any] = json.loads(description)
        words = np.frombuffer(code, "<u4").reshape(-1, WORDS)
        return cls(
            config_hash=config_hash,
            data_address=record["data_address"],
            data=data,
            instructions=tuple(Instruction.decode(w) for w in words),
            window_bytes=record["window_bytes"],
            inputs=tuple(Descriptor(**d) for d in record["inputs"]),
            outputs=tuple(Descriptor(**d) for d in record["outputs"]),
            macs_of_length=tuple(record["macs_of_length"]),
            samples=record["samples"],
            tokens=record["tokens"],
            least_tokens=record["least_tokens"],
        )
