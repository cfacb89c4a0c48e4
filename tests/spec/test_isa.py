"""Instructions: fields do not overlap, encoding round-trips, sizes follow the runtime length."""

import numpy as np
import pytest

from gateformer.spec.errors import ImageError
from gateformer.spec.isa import (
    FORMATS,
    SIZE_WORDS,
    SYNC_ENGINES,
    Engine,
    Instruction,
    Opcode,
    instruction,
    semaphore_exists,
)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda f: f.opcode.name)
def test_fields_do_not_overlap(form):
    taken = set()
    for field in form.fields:
        bits = {32 * field.word + field.low + i for i in range(field.width)}
        assert field.low + field.width <= 32
        assert not bits & taken
        taken |= bits
        if field.name.endswith("_dynamic"):
            assert field.word in SIZE_WORDS


def test_random_instructions_round_trip():
    rng = np.random.default_rng(7)
    for form in FORMATS.values():
        for _ in range(50):
            values = {
                f.name: int(rng.integers(0, f.mask, endpoint=True))
                for f in form.fields
                if f.name != "opcode"
            }
            one = Instruction(form.opcode, values)
            assert Instruction.decode(one.encode()) == one


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="rows"):
        instruction(Opcode.DMA_LOAD, rows=4096).encode()
    with pytest.raises(ValueError, match="colour"):
        instruction(Opcode.DMA_LOAD, colour=1)


def test_an_unknown_opcode_is_refused():
    with pytest.raises(ImageError, match="15"):
        Instruction.decode(np.array([15] + [0] * 7, np.uint32))


@pytest.mark.parametrize(
    ("size", "offset", "length", "expected"),
    [(32, 0, 100, 32), (32, 0, 10, 10), (32, 64, 70, 6), (32, 64, 64, 0), (32, 64, 3, 0)],
)
def test_dynamic_sizes_are_cut(size, offset, length, expected):
    one = instruction(
        Opcode.SOFTMAX, rows=size, rows_offset=offset, rows_dynamic=1, length=99, sample=1
    )
    cut = one.at_length([7, length])
    assert (cut["rows"], cut["length"]) == (expected, 99)


def test_semaphores_exist_where_a_hazard_can_be():
    pairs = [(p, c) for p in SYNC_ENGINES for c in SYNC_ENGINES if semaphore_exists(p, c)]
    assert len(pairs) == 24
    assert (Engine.LOAD_A, Engine.LOAD_B) not in pairs
    assert (Engine.LOAD_A, Engine.DMA) in pairs
