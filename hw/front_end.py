"""The front end of an engine: its instruction, its next one, and their tokens."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from gateformer.hw.interfaces import (
    ENGINE_WORDS,
    InstructionPort,
    SemaphorePort,
    instruction_bits,
)
from gateformer.spec.config import INSTRUCTION_BYTES
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine

NUMBER_LOW, NUMBER_HIGH = 16, 3
"""Bits of an instruction's number (its byte address / INSTRUCTION_BYTES) that the queues keep in
word 0 from bit 16 on, and in word 1 from bit 12 on: places of fields that no engine reads."""


def pack_number(index: int, word: Value, number: Value) -> Value:
    """Word 0 or 1 of an instruction with its part of the instruction's number."""
    if index == 0:
        return Cat(word[:16], number[:NUMBER_LOW])
    return Cat(word[:12], number[NUMBER_LOW:], word[12 + NUMBER_HIGH :])


def unpack_number(index: int, word: Value) -> Value:
    """The part of the number that word 0 or 1 holds, as bits of a byte address."""
    return word[16:] if index == 0 else word[12 : 12 + NUMBER_HIGH]


class QueueRead(Signature):
    """Instructions on their way to a front end, word by word.

    While `select`, `word` is word `index` of an instruction for this engine; all eight come in
    order, one a cycle, the last with `last`. They come only while `want`.
    """

    def __init__(self) -> None:
        super().__init__(
            {"select": Out(1), "index": Out(3), "last": Out(1), "word": Out(32), "want": In(1)}
        )


class FrontEnd(wiring.Component):
    """Holds the instruction of one engine, awaits its tokens before and gives its signals after it.

    The next instruction is loaded and awaits its tokens while the current one runs; then it follows
    2 to 4 cycles after the completion: as soon as the tokens of the last one are handed in. ARRAY,
    which has no semaphores, gets it in the cycle after the completion.

    `pc`: byte address of the instruction at the engine, for a monitor in simulation. `waiting`: the
    engine has nothing to do, for its next instruction waits for tokens. `active`: an instruction is
    at the engine, `completed`: in its last cycle there. `behind`: the instruction at the engine, or
    completed last, is not the one that was loaded last. `idle`: nothing held, no signal to be
    handed in.
    """

    load: Any
    instructions: Any
    pc: Signal
    waiting: Signal
    active: Signal
    completed: Signal
    behind: Signal
    idle: Signal
    semaphores: Any

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        members = {
            "load": In(QueueRead()),
            "instructions": In(InstructionPort(engine)),
            "pc": Out(24),
            "waiting": Out(1),
            "active": Out(1),
            "completed": Out(1),
            "behind": Out(1),
            "idle": Out(1),
        }
        if engine in SYNC_ENGINES:
            members["semaphores"] = Out(SemaphorePort())
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        load, stream = self.load, self.instructions.stream
        places = ENGINE_WORDS[self.engine]
        # Words shift through a chain: its registers need no multiplexer and one enable.
        shift, done = Signal(), Signal()
        chain = {i: Signal(32, name=f"next_{i}", reset_less=True) for i in places}
        source: Value = load.word
        for i in reversed(places):
            with m.If(shift):
                m.d.sync += chain[i].eq(source)
            source = chain[i]
        m.d.comb += [
            shift.eq(load.select & Cat(Const(int(i in places), 1) for i in range(WORDS))
                     .bit_select(load.index, 1)),
            done.eq(load.select & load.last),
        ]  # fmt: skip

        held, move, posting = Signal(), Signal(), Signal()
        current = {i: Signal(32, name=f"word_{i}", reset_less=True) for i in places}
        # They follow the chain whenever they may, so that all their enables come from one
        # flip-flop.
        with m.If(~stream.valid | (0 if self.engine in SYNC_ENGINES else stream.ready)):
            m.d.sync += [current[i].eq(chain[i]) for i in places]
        number = Cat(unpack_number(i, current[i]) for i in (0, 1))
        m.d.sync += [
            held.eq(done | (held & ~move)),
            stream.valid.eq(move | (stream.valid & ~stream.ready)),
        ]
        m.d.comb += [
            load.want.eq(~held),
            Value.cast(stream.payload).eq(
                Cat(current.get(i, Const(0, 32)) for i in range(WORDS))
                & instruction_bits(self.engine)
            ),
            self.pc.eq(Cat(Const(0, INSTRUCTION_BYTES.bit_length() - 1), number)),
            self.active.eq(stream.valid),
            self.completed.eq(stream.valid & stream.ready),
            self.behind.eq(held & (stream.valid | posting)),
            self.idle.eq(~(held | stream.valid | posting)),
        ]
        if self.engine in SYNC_ENGINES:
            self._synchronize(m, chain[0], current[0], done, held, move, posting)
        else:
            m.d.comb += move.eq(held & (~stream.valid | stream.ready))
        return m

    def _synchronize(
        self,
        m: Module,
        following: Signal,
        current: Signal,
        done: Signal,
        held: Signal,
        move: Signal,
        posting: Signal,
    ) -> None:
        """Tokens before an instruction starts and after it is complete."""
        port, valid = self.semaphores, self.instructions.stream.valid
        asking = port.wait_valid
        with m.If(valid):
            m.d.sync += port.signal_mask.eq(current[10:16])
        m.d.sync += [
            asking.eq(done | (asking & ~port.wait_ready)),
            posting.eq(self.completed | (posting & ~port.signal_ready)),
        ]
        m.d.comb += [
            port.wait_mask.eq(following[4:10]),
            port.signal_valid.eq(posting),
            self.waiting.eq(asking & ~valid),
            move.eq(held & ~valid & ~(asking & ~port.wait_ready) & ~(posting & ~port.signal_ready)),
        ]
