"""The program image: round-trip, and every damage is noticed."""

import numpy as np
import pytest

from gateformer.spec.configs import ECP5_85K, SMALL
from gateformer.spec.errors import ImageError
from gateformer.spec.image import Descriptor, ProgramImage
from gateformer.spec.isa import Opcode, instruction

IMAGE = ProgramImage(
    config_hash=SMALL.hash,
    data_address=256,
    data=bytes(range(64)),
    instructions=(
        instruction(Opcode.DMA_LOAD, rows=1, words=8, dram_address=256),
        instruction(Opcode.HALT),
    ),
    window_bytes=1024,
    inputs=(Descriptor("x", 2, 8, 8, "int8", 0.5, -3, "dram", 0),),
    outputs=(Descriptor("y", 2, 8, 4, "int16", 0.25, 0, "dram", 64, 2, 0, True),),
    macs_of_length=(5, 30, 2),
    samples=2,
    tokens=9,
    least_tokens=3,
)


def test_round_trip():
    assert ProgramImage.from_bytes(IMAGE.to_bytes()) == IMAGE
    assert IMAGE.program_address == 320
    assert IMAGE.macs([9, 0]) == 5 + 9 * 30 + 81 * 2
    assert IMAGE.model_macs == 2 * IMAGE.macs([9])


def test_every_flipped_bit_is_noticed():
    content = IMAGE.to_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ImageError):
            ProgramImage.from_bytes(bytes(damaged))


def test_every_truncation_is_noticed():
    content = IMAGE.to_bytes()
    for length in range(len(content)):
        with pytest.raises(ImageError):
            ProgramImage.from_bytes(content[:length])


def test_another_config_is_refused():
    IMAGE.check_config(SMALL)
    with pytest.raises(ImageError, match="compile it again"):
        IMAGE.check_config(ECP5_85K)


def test_random_bytes_are_refused():
    rng = np.random.default_rng(3)
    for _ in range(500):
        head = b"GFPI" if rng.integers(2) else b""
        with pytest.raises(ImageError):
            ProgramImage.from_bytes(head + rng.bytes(rng.integers(0, 100)))
