"""The program image: one file that carries a compiled model to golden model, simulator and board.

Layout, little-endian: a fixed header, a JSON description, the data. The CRC-32 in the header covers
everything behind the header's checksum field.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ImageError
from gateformer.spec.isa import WORDS, Instruction

MAGIC = b"GFPI"
FORMAT_VERSION = 1
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


@dataclass(frozen=True)
class ProgramImage:
    """A program, its constants, and where its inputs and outputs lie.

    The data and, behind it, the instructions go to `data_address` (bytes, in DRAM or, without DRAM,
    in local memory). window_bytes: DRAM that the program uses. model_macs: multiply-accumulates of
    the model's own products.
    """

    config_hash: int
    data_address: int
    data: bytes
    instructions: tuple[Instruction, ...]
    window_bytes: int
    inputs: tuple[Descriptor, ...]
    outputs: tuple[Descriptor, ...]
    model_macs: int

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

    def to_bytes(self) -> bytes:
        description = json.dumps(
            {
                "data_address": self.data_address,
                "window_bytes": self.window_bytes,
                "model_macs": self.model_macs,
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
            model_macs=record["model_macs"],
        )
