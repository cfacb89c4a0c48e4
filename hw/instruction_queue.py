"""The instruction queues of all engines in one RAM, and the front end of each engine."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from gateformer.hw.interfaces import ENGINE_WORDS, InstructionPort, SemaphorePort
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine, Opcode

PC_INDEX = WORDS
"""Index under which the address of an instruction follows its eight words."""


class QueueWrite(Signature):
    """The write side of the queues, seen from the sequencer.

    With `enable`, `data` goes to place `index` (words 0 to 7, then PC_INDEX: the byte address) of
    the next free slot of `engine`; writing PC_INDEX hands the instruction to the engine. `full`:
    `engine` of the cycle before has no free slot; it has one until an instruction is handed over.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "enable": Out(1),
                "engine": Out(3),
                "index": Out(4),
                "data": Out(32),
                "full": In(1),
            }
        )


class QueueRead(Signature):
    """One instruction on its way to a front end: its words in order, the address last.

    While `want`, the front end has room for an instruction and `enable` may bring one.
    """

    def __init__(self) -> None:
        super().__init__({"enable": Out(1), "index": Out(4), "word": Out(32), "want": In(1)})


def _address(word: Value) -> Value:
    """The instruction address in a word: a multiple of INSTRUCTION_BYTES of 24 bits."""
    low = INSTRUCTION_BYTES.bit_length() - 1
    return Cat(Const(0, low), word[low:24])


class _State(enum.Enum, shape=2):
    EMPTY = 0
    WAIT = 1
    ACTIVE = 2
    SIGNAL = 3


class FrontEnd(wiring.Component):
    """Holds the instruction of one engine, awaits its tokens before and gives its signals after it.

    An engine with semaphores gets its next instruction at least 15 cycles after it completed the
    last one: its rings and buffers bridge that. ARRAY, which nothing may hold up, has none, and a
    second instruction is held ready for it, valid in the cycle after the completion.

    `pc` is the byte address of the instruction at hand; it stays for at least 10 cycles after the
    completion (not that of ARRAY), so that errors found late are put down to the right one.
    `waiting` is 1 while it waits for tokens, `active` while it is at the engine, `completed` in its
    last cycle there; `idle`: nothing held, no signal pending.
    """

    load: Any
    instructions: Any
    pc: Signal
    waiting: Signal
    active: Signal
    completed: Signal
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
            "idle": Out(1),
        }
        if engine in SYNC_ENGINES:
            members["semaphores"] = Out(SemaphorePort())
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        load, stream = self.load, self.instructions.stream
        places = (*ENGINE_WORDS[self.engine], PC_INDEX)
        current = {i: Signal(32, name=f"word{i}", reset_less=True) for i in places}
        last = Signal()
        m.d.comb += [
            last.eq(load.enable & (load.index == PC_INDEX)),
            self.pc.eq(_address(current[PC_INDEX])),
            Value.cast(stream.payload).eq(Cat(current.get(i, Const(0, 32)) for i in range(WORDS))),
            self.active.eq(stream.valid),
            self.completed.eq(stream.valid & stream.ready),
        ]
        if self.engine in SYNC_ENGINES:
            self._synchronized(m, current[0], last)
            loaded = current
        else:
            loaded = {i: Signal(32, name=f"next{i}", reset_less=True) for i in places}
            held, move = Signal(), Signal()
            m.d.comb += [
                move.eq(held & (~stream.valid | stream.ready)),
                load.want.eq(~held),
                self.idle.eq(~held & ~stream.valid),
            ]
            with m.If(last):
                m.d.sync += held.eq(1)
            with m.If(move):
                m.d.sync += [held.eq(0), stream.valid.eq(1)]
                m.d.sync += [current[i].eq(loaded[i]) for i in places]
            with m.Elif(stream.ready):
                m.d.sync += stream.valid.eq(0)
        for i in places:
            with m.If(load.enable & (load.index == i)):
                m.d.sync += loaded[i].eq(load.word)
        return m

    def _synchronized(self, m: Module, word: Value, last: Value) -> None:
        stream, port = self.instructions.stream, self.semaphores
        wait, signal = word[4:10], word[10:16]
        if self.engine == Engine.EPILOGUE:
            shared = word[0:4] == Opcode.GEMM
            wait, signal = Mux(shared, word[16:22], wait), Mux(shared, word[22:28], signal)
        state = Signal(_State)
        m.d.comb += [
            port.wait_mask.eq(wait),
            port.signal_mask.eq(signal),
            port.wait_valid.eq(state == _State.WAIT),
            port.signal_valid.eq(state == _State.SIGNAL),
            self.load.want.eq(state == _State.EMPTY),
            self.idle.eq(state == _State.EMPTY),
            self.waiting.eq(state == _State.WAIT),
            stream.valid.eq(state == _State.ACTIVE),
        ]
        with m.Switch(state):
            with m.Case(_State.EMPTY), m.If(last):
                m.d.sync += state.eq(_State.WAIT)
            with m.Case(_State.WAIT), m.If(port.wait_ready):
                m.d.sync += state.eq(_State.ACTIVE)
            with m.Case(_State.ACTIVE), m.If(stream.ready):
                m.d.sync += state.eq(_State.SIGNAL)
            with m.Case(_State.SIGNAL), m.If(port.signal_ready):
                m.d.sync += state.eq(_State.EMPTY)


class InstructionQueues(wiring.Component):
    """The queues of all engines and their front ends.

    The RAM has a region for each engine with `queue_depth` slots of eight words; an eighth region
    holds the addresses of the instructions. One loader, shared by all, brings an instruction to a
    front end that has room in 11 cycles; engines of lower number go first. Members `dma`, `load_a`,
    ... are the engines' instruction ports; all other outputs go by engine number. `empty`: nothing
    is queued, on its way or at work anywhere, and no signal is pending.
    """

    write: Any
    dma: Any
    load_a: Any
    load_b: Any
    load_p: Any
    epilogue: Any
    vector: Any
    array: Any
    semaphores: Any
    waiting: Signal
    active: Signal
    completed: Signal
    pc: Any
    empty: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.depth = config.queue_depth
        super().__init__(
            {
                "write": In(QueueWrite()),
                **{engine.name.lower(): In(InstructionPort(engine)) for engine in Engine},
                "semaphores": Out(SemaphorePort()).array(len(SYNC_ENGINES)),
                "waiting": Out(len(Engine)),
                "active": Out(len(Engine)),
                "completed": Out(len(Engine)),
                "pc": Out(24).array(len(Engine)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = (self.depth - 1).bit_length()
        count = len(Engine)
        # One bit more than a slot number tells a full queue from an empty one.
        filled = Array(Signal(slots + 1, name=f"filled_{e.name.lower()}") for e in Engine)
        loaded = Array(Signal(slots + 1, name=f"loaded_{e.name.lower()}") for e in Engine)
        queued, want, idle = Signal(count), Signal(count), Signal(count)

        # A slot is read only after it was handed over and written only after it was read, so that
        # no address is read and written in one cycle.
        memory: Any = Memory(shape=32, depth=8 * WORDS << slots, init=[], attrs={"no_rw_check": 1})
        m.submodules.memory = memory
        write_port = memory.write_port()
        read_port = memory.read_port()

        def address(engine: Value, slot: Value, index: Value) -> Value:
            return Mux(
                index[-1],
                Cat(engine, slot[:slots], Const(7, 3)),
                Cat(index[:3], slot[:slots], engine),
            )

        write = self.write
        write_slot = Signal(slots + 1)
        m.d.comb += [
            write_slot.eq(filled[write.engine]),
            write_port.en.eq(write.enable),
            write_port.addr.eq(address(write.engine, write_slot, write.index)),
            write_port.data.eq(write.data),
        ]
        m.d.sync += write.full.eq((write_slot ^ loaded[write.engine]) == self.depth)
        with m.If(write.enable & (write.index == PC_INDEX)):
            m.d.sync += filled[write.engine].eq(write_slot + 1)

        engine, index, busy = Signal(3), Signal(4), Signal()
        read_slot = Signal(slots + 1)
        # The word is in the RAM's output after one cycle and in `word` after two.
        word = Signal(32, reset_less=True)
        read1, read2 = Signal(), Signal()
        index1, index2 = Signal(4), Signal(4)
        m.d.comb += [
            read_slot.eq(loaded[engine]),
            read_port.en.eq(busy),
            read_port.addr.eq(address(engine, read_slot, index)),
        ]
        m.d.sync += [
            Cat(read1, read2).eq(Cat(busy, read1)),
            Cat(index1, index2).eq(Cat(index, index1)),
            word.eq(read_port.data),
        ]
        loading = Signal()
        m.d.comb += loading.eq(busy | read1 | read2)
        with m.If(busy):
            m.d.sync += index.eq(index + 1)
            with m.If(index == PC_INDEX):
                m.d.sync += [busy.eq(0), index.eq(0), loaded[engine].eq(read_slot + 1)]
        with m.If(~loading):
            m.d.sync += busy.eq((queued & want).any())
            for i in reversed(range(count)):
                with m.If(queued[i] & want[i]):
                    m.d.sync += engine.eq(i)

        for e in Engine:
            front = FrontEnd(e)
            m.submodules[f"front_{e.name.lower()}"] = front
            m.d.comb += [
                queued[e].eq(filled[e] != loaded[e]),
                want[e].eq(front.load.want),
                front.load.enable.eq(read2 & (engine == e)),
                front.load.index.eq(index2),
                front.load.word.eq(word),
                self.waiting[e].eq(front.waiting),
                self.active[e].eq(front.active),
                self.completed[e].eq(front.completed),
                self.pc[e].eq(front.pc),
                idle[e].eq(front.idle),
            ]
            wiring.connect(m, front.instructions, wiring.flipped(getattr(self, e.name.lower())))
            if e in SYNC_ENGINES:
                wiring.connect(m, front.semaphores, wiring.flipped(self.semaphores[e]))
        m.d.comb += self.empty.eq(~queued.any() & ~loading & idle.all())
        return m
