"""The words that control the vector processor, and how programs of them are put together."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEXT_BITS, REGISTER_BITS = 9, 6
CAPACITY = 1 << NEXT_BITS
"""Words of the longest program."""
BANKED = 0b110000
"""From this register on there are two of each; the processor's `wide` tells which is meant."""
NOTHING = 0
"""The register that takes what no one wants."""
_UNREAD = 1
"""The register that is read where nothing is: another than NOTHING, which is always written."""


class Op(enum.IntEnum):
    """What the adder makes of accumulator A (17 bits), multiplier register Q (16 bits), flag C and
    operand M, and where the sum goes. Unsigned operands are extended by 0, signed ones by their
    sign; C takes bit 16 of the sum: a carry, or the sign of a signed sum."""

    NOP = 0
    LOAD = enum.auto()
    """A = M, signed."""
    LOAD_U = enum.auto()
    LOAD_C = enum.auto()
    """A = M + C, signed; sets C."""
    ADD = enum.auto()
    """A = A + M, signed."""
    ADD_U = enum.auto()
    ADD_C = enum.auto()
    """A = A + M; sets C."""
    ADD_CC = enum.auto()
    """A = A + M + C; sets C."""
    ADD_S = enum.auto()
    """A = A + M, signed; sets C."""
    ADD_SC = enum.auto()
    """A = A + M + C, signed."""
    ADD_Q = enum.auto()
    """A = A + Q; sets C."""
    ADD_TO_Q = enum.auto()
    """Q = A + M; sets C."""
    SUBTRACT = enum.auto()
    """A = A - M, signed."""
    SUBTRACT_C = enum.auto()
    """A = A - M; sets C where nothing was borrowed."""
    SUBTRACT_CC = enum.auto()
    """The same with what was borrowed before."""
    COMPARE = enum.auto()
    """C = A >= M, both unsigned."""
    COMPARE_S = enum.auto()
    """C = A < M, both signed."""
    MOVE = enum.auto()
    """The sum is M, and C its sign."""
    MOVE_Q = enum.auto()
    """The sum is Q, and C its sign."""
    LOAD_Q = enum.auto()
    """Q = M."""
    A_TO_Q = enum.auto()
    Q_TO_A = enum.auto()
    """A = Q, unsigned."""
    EXTERNAL = enum.auto()
    """A = what comes from local memory or from the instruction, signed."""
    EXP = enum.auto()
    """Q = the entry of softmax's table that A named two cycles before."""
    FIRST = enum.auto()
    """A = A + M where Q is odd, signed; Q moves on: the first step of a product."""
    FIRST_U = enum.auto()
    STEP = enum.auto()
    """A moves into Q by a bit; then as FIRST."""
    STEP_U = enum.auto()
    LAST = enum.auto()
    """As STEP, but M is subtracted: the sign's step of a signed multiplier."""
    SHIFT = enum.auto()
    """A moves into Q by a bit; signed. Ends a product, which is then in A and Q."""
    SHIFT_U = enum.auto()


class Action(enum.IntEnum):
    """What else a word does. From READ on the word stays until what it waits for is there."""

    NONE = 0
    SELECT = 1
    """The lowest bits of A say which byte of a word is meant."""
    COUNT = 2
    """The counter gets the literal, and nothing is written; it counts down in each later cycle."""
    SWAP = 3
    """Turns `wide` over."""
    PEEK = 4
    """M is the memory at A, in place of a register."""
    POKE = 5
    """The sum goes to the memory at A, in place of a register."""
    FILL = 6
    """The upper byte of the sum goes to the entry of softmax's table that A names."""
    DONE = 7
    """The instruction is complete."""
    READ = 8
    """Asks for the word of local memory at A, until it is taken."""
    WRITE = 9
    """Writes Q to local memory at A, until it is taken."""
    FIELD = 10
    """Asks for half a word of the instruction, until it is there; the literal tells which."""
    RESPONSE = 11
    """Until local memory answers."""
    IDLE = 12
    """Until there is an instruction."""
    REPEAT = 13
    """Until the counter is 0."""


class Condition(enum.IntEnum):
    """When a word's other successor follows."""

    NEVER = 0
    WIDE = 1
    """`wide` is 1."""
    CARRY = 2
    """C is 1, as this word leaves it."""
    ODD = 3
    """A is odd, as this word finds it."""


FIELDS = {"next": 9, "condition": 2, "action": 4, "read": 6, "write": 6, "op": 5}
"""Bits of a word, lowest first. `next`: the successor; where the condition holds, the one behind
it. `read`: the register that is M in the next cycle. `write`: the register that gets the sum."""
WORD_BITS = sum(FIELDS.values())


@dataclass(eq=False)
class _Word:
    op: Op = Op.NOP
    operand: str | None = None
    to: str | None = None
    action: Action = Action.NONE
    literal: int = 0
    condition: Condition = Condition.NEVER
    labels: list[str | None] = field(default_factory=lambda: [None, None])
    """The successors' labels; None for the word behind."""
    follows: "list[_Word]" = field(default_factory=list)
    """The successors: one, or that without and that with the condition."""


MEMORY = "memory"
"""The operand that a PEEK before has looked up."""


class Assembler:
    """Collects words; `assemble` puts them in their places.

    A word's operand is read while the word before it runs, and a condition chooses between an even
    place and the odd one behind it. Words that do nothing are put in where that needs them.
    """

    def __init__(self, registers: Mapping[str, int]) -> None:
        self.registers = registers
        self._words: list[_Word] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Names the next word. Raises ValueError for a name that is taken."""
        if name in self._labels:
            raise ValueError(f"label {name!r} is there twice")
        self._labels[name] = len(self._words)

    def do(
        self,
        op: Op,
        operand: str | None = None,
        *,
        to: str | None = None,
        action: Action = Action.NONE,
        literal: int = 0,
    ) -> None:
        """A word; its successor is the one behind it."""
        self._words.append(_Word(op, operand, to, action, literal))

    def repeat(
        self, op: Op, operand: str | None = None, *, times: int, to: str | None = None
    ) -> None:
        """A word that runs so many times. The one before it sets the counter, where it can."""
        before = self._words[-1]
        named = len(self._words) in self._labels.values()
        if before.action or before.to or before.condition or before.labels[0] or named:
            self.do(Op.NOP)
            before = self._words[-1]
        before.action, before.literal = Action.COUNT, times - 1
        self.do(op, operand, to=to, action=Action.REPEAT)

    def when(self, condition: Condition, label: str) -> None:
        """Goes from the last word to `label` if the condition holds."""
        self._words[-1].condition = condition
        self._words[-1].labels[1] = label

    def jump(self, label: str) -> None:
        """Goes from the last word to `label`, unless its condition holds."""
        self._words[-1].labels[0] = label

    def assemble(self) -> list[int]:
        """The program; it starts at place 0, with its first word.

        Raises ValueError for a name that is not there, a program that is too long, or a word that
        wants two things at a time.
        """
        words = self._linked()
        for word in list(words):
            self._separate(words, word)
        pairs = self._pairs(words)
        if words[0] in {*pairs, *pairs.values()}:
            raise ValueError("no condition can lead to the first word")
        places = self._places(words, pairs)
        program = [0] * CAPACITY
        for word, place in places.items():
            program[place] = self._encode(word, places)
        return program

    def _linked(self) -> list[_Word]:
        """The words with their successors."""
        for i, word in enumerate(self._words):
            first, other = word.labels
            word.follows = [self._find(first) if first is not None else self._words[i + 1]]
            if other is not None:
                word.follows.append(self._find(other))
        return list(self._words)

    def _find(self, label: str) -> _Word:
        if label not in self._labels:
            raise ValueError(f"there is no label {label!r}")
        return self._words[self._labels[label]]

    def _separate(self, words: list[_Word], word: _Word) -> None:
        """Puts a word between this and each successor whose operand cannot be read here."""
        wanted = word.operand if word.action is Action.REPEAT else None
        for i, after in enumerate(word.follows):
            operand = after.operand
            if operand is None:
                continue
            if operand == MEMORY:
                if word.action is not Action.PEEK:
                    raise ValueError(f"nothing has looked up the operand of {after.op.name}")
            elif (
                word.action in (Action.FIELD, Action.PEEK)
                or (word.action is Action.SWAP and self._register(operand) >= BANKED)
                or operand == word.to
                or wanted not in (None, operand)
            ):
                self._insert(words, word, i)
            else:
                wanted = operand

    def _insert(self, words: list[_Word], word: _Word, successor: int) -> None:
        between = _Word(follows=[word.follows[successor]])
        word.follows[successor] = between
        words.append(between)

    def _pairs(self, words: list[_Word]) -> dict[_Word, _Word]:
        """For each word that must stand at an even place before another one, that one."""
        pairs: dict[_Word, _Word] = {}
        taken: set[_Word] = set()
        for word in list(words):
            if len(word.follows) < 2 or pairs.get(word.follows[0]) is word.follows[1]:
                continue
            for i, end in enumerate(list(word.follows)):
                if end in taken:
                    self._insert(words, word, i)
            even, odd = word.follows
            pairs[even] = odd
            taken |= {even, odd}
        return pairs

    def _places(self, words: Sequence[_Word], pairs: Mapping[_Word, _Word]) -> dict[_Word, int]:
        # The first one comes to place 0.
        places: dict[_Word, int] = {words[0]: 0}
        free = 2
        for word in words:
            if word in pairs:
                free += free % 2
                places[word], places[pairs[word]] = free, free + 1
                free += 2
        used = set(places.values())
        holes = (place for place in range(CAPACITY) if place not in used)
        for word in words:
            if word not in places:
                place = next(holes, None)
                if place is None:
                    raise ValueError(f"{len(words)} words exceed the {CAPACITY} of a program")
                places[word] = place
        if max(places.values()) >= CAPACITY:
            raise ValueError(f"{len(words)} words exceed the {CAPACITY} of a program")
        return places

    def _encode(self, word: _Word, places: Mapping[_Word, int]) -> int:
        readers = [*word.follows, *([word] if word.action is Action.REPEAT else [])]
        operands = [reader.operand for reader in readers if reader.operand is not None]
        named = [operand for operand in operands if operand != MEMORY]
        read = self._register(named[0]) if named else _UNREAD
        write = NOTHING if word.to is None else self._register(word.to)
        if word.action is Action.FIELD:
            read = word.literal
        elif word.action is Action.COUNT:
            write = word.literal
        values = (places[word.follows[0]], word.condition, word.action, read, write, word.op)
        bits = shift = 0
        for value, (name, width) in zip(values, FIELDS.items(), strict=True):
            if not 0 <= value < 1 << width:
                raise ValueError(f"{value} does not fit the {width} bits of {name!r}")
            bits |= value << shift
            shift += width
        return bits

    def _register(self, name: str) -> int:
        if name not in self.registers:
            raise ValueError(f"there is no register {name!r}")
        return self.registers[name]
