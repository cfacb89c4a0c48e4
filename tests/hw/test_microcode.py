"""Words of the vector processor: where they stand, and what is put between them."""

import pytest

from gateformer.hw.microcode import (
    CAPACITY,
    FIELDS,
    MEMORY,
    NOTHING,
    WORD_BITS,
    Action,
    Assembler,
    Condition,
    Op,
)

REGISTERS = {"a": 2, "b": 3, "banked": 48}


def decode(word):
    values = {}
    for name, width in FIELDS.items():
        values[name] = word & (1 << width) - 1
        word >>= width
    return values


def follow(program, *, steps, holds=()):
    """The words of a run; holds: the steps after which a condition holds."""
    place, seen = 0, []
    for step in range(steps):
        seen.append(decode(program[place]))
        place = seen[-1]["next"] | (step in holds)
    return seen


def start():
    a = Assembler(REGISTERS)
    a.label("start")
    a.do(Op.NOP, action=Action.IDLE)
    return a


def test_fields_fill_a_word():
    assert WORD_BITS == 32 and 1 << FIELDS["next"] == CAPACITY


def test_an_operand_is_read_by_the_word_before():
    a = start()
    a.do(Op.LOAD, "a")
    a.do(Op.ADD, "b", to="a")
    a.jump("start")
    idle, load, add, again = follow(a.assemble(), steps=4)
    assert (idle["read"], load["op"]) == (REGISTERS["a"], Op.LOAD)
    assert (load["read"], load["write"]) == (REGISTERS["b"], NOTHING)
    assert (add["op"], add["write"]) == (Op.ADD, REGISTERS["a"])
    assert again["action"] == Action.IDLE


@pytest.mark.parametrize(
    ("before", "operand"),
    [
        ({"to": "a"}, "a"),
        ({"action": Action.FIELD}, "a"),
        ({"action": Action.PEEK}, "a"),
        ({"action": Action.SWAP}, "banked"),
    ],
)
def test_a_word_that_cannot_read_gets_one_behind_it(before, operand):
    a = start()
    a.do(Op.NOP, **before)
    a.do(Op.LOAD, operand)
    a.jump("start")
    _, first, between, load = follow(a.assemble(), steps=4)
    assert first["read"] != REGISTERS[operand] or before.get("action") is Action.FIELD
    assert (between["op"], between["read"]) == (Op.NOP, REGISTERS[operand])
    assert load["op"] == Op.LOAD


def test_a_condition_chooses_between_two_places():
    a = start()
    for label in ("left", "right"):
        a.do(Op.COMPARE, "a")
        a.when(Condition.CARRY, label)
    a.do(Op.A_TO_Q)
    a.jump("start")
    a.label("left")
    a.do(Op.LOAD, "a")
    a.jump("right")
    a.label("right")
    a.do(Op.LOAD_Q, "b")
    a.jump("start")
    program = a.assemble()

    def ops(*holds):
        return [Op(word["op"]) for word in follow(program, steps=8, holds=holds)]

    assert [op for op in ops() if op][:3] == [Op.COMPARE, Op.COMPARE, Op.A_TO_Q]
    assert [op for op in ops(1) if op][:3] == [Op.COMPARE, Op.LOAD, Op.LOAD_Q]
    assert all(not word["next"] % 2 for word in map(decode, program) if word["condition"])


def test_a_repetition_sets_the_counter_before():
    a = start()
    a.do(Op.LOAD, "a", to="b")
    a.repeat(Op.STEP, "a", times=15)
    a.repeat(Op.SHIFT, times=4)
    a.jump("start")
    words = follow(a.assemble(), steps=6)
    counts = [word["write"] for word in words if word["action"] == Action.COUNT]
    assert counts == [14, 3]
    step = next(word for word in words if word["op"] == Op.STEP)
    assert (step["action"], step["read"]) == (Action.REPEAT, REGISTERS["a"])


def test_what_cannot_be_is_refused():
    a = start()
    with pytest.raises(ValueError, match="label 'start' is there twice"):
        a.label("start")
    a.jump("nowhere")
    with pytest.raises(ValueError, match="no label 'nowhere'"):
        a.assemble()
    for operand, reason in (("c", "no register 'c'"), (MEMORY, "nothing has looked up")):
        a = start()
        a.do(Op.LOAD, operand)
        a.jump("start")
        with pytest.raises(ValueError, match=reason):
            a.assemble()
    a = start()
    for _ in range(CAPACITY):
        a.do(Op.NOP)
    a.jump("start")
    with pytest.raises(ValueError, match="exceed the 512 of a program"):
        a.assemble()
