"""The instruction queues of all engines in one RAM, and the front end of each engine."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature

from gateformer.hw.interfaces import ENGINE_WORDS, InstructionPort, SemaphorePort
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine, Opcode

PC_INDEX = WORDS
"""Index under which the address of an instruction follows its eight words."""
PREFETCHED = (Engine.LOAD_A, Engine.LOAD_B, Engine.EPILOGUE, Engine.ARRAY)
"""Engines on the way of a product: they hold one more instruction next to the one at work, so that
the next begins at once. The others wait some 13 cycles for it."""


ERROR_LAG = 3
"""Cycles after which local memory has reported an address error, at most."""


class QueueWrite(Signature):
    """The write side of the queues, seen from the sequencer.

    With `enable`, `data` goes to place `index` (words 0 to 7, then PC_INDEX: the byte address) of
    the next free slot of `engine`; writing PC_INDEX hands the instruction to the engine. `full`:
    `engine` has no free slot; once it is 0 it stays so until an instruction is handed over.
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

    A prefetched instruction without waits is valid in the cycle after the completion of the last
    one if the signals were given in the cycle of completion; one with waits a cycle after that at
    the earliest. `pc` is the byte address of the instruction at work, `waiting` is 1 while it waits
    for tokens, `active` while it is at the engine, `completed` in its last cycle there; `idle`:
    nothing held, no signal pending. `error_pc` is the address to which an error belongs that local
    memory reports ERROR_LAG cycles after the request at most.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        members = {
            "load": In(QueueRead()),
            "instructions": In(InstructionPort(engine)),
            "pc": Out(24),
            "error_pc": Out(24),
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
        places = (*ENGINE_WORDS[self.engine], PC_INDEX)
        prefetched = self.engine in PREFETCHED
        current = {i: Signal(32, name=f"word{i}", reset_less=True) for i in places}
        last = Signal()
        m.d.comb += last.eq(self.load.enable & (self.load.index == PC_INDEX))
        # `free`: the front end can take its next instruction; `arrived`: that one is complete.
        free, arrived, held = Signal(), Signal(), Signal()
        if prefetched:
            following = {i: Signal(32, name=f"next{i}", reset_less=True) for i in places}
            with m.If(last):
                m.d.sync += held.eq(1)
            with m.Elif(free):
                m.d.sync += held.eq(0)
            with m.If(free):
                m.d.sync += [current[i].eq(following[i]) for i in places]
            m.d.comb += [self.load.want.eq(~held), arrived.eq(held)]
        else:
            following = current
            m.d.comb += [self.load.want.eq(self.idle), arrived.eq(last)]
        for i in places:
            with m.If(self.load.enable & (self.load.index == i)):
                m.d.sync += following[i].eq(self.load.word)

        m.d.comb += [self.pc.eq(_address(current[PC_INDEX])), self.error_pc.eq(self.pc)]
        if self.engine == Engine.EPILOGUE:
            # Its last write may be found out when its next instruction is already at work. The
            # loader takes longer than ERROR_LAG to replace the address in `following`.
            moved, settled = Signal(ERROR_LAG), Signal(24)
            m.d.sync += moved.eq(Cat(free & held, moved))
            with m.If(moved[-1]):
                m.d.sync += settled.eq(_address(following[PC_INDEX]))
            m.d.comb += self.error_pc.eq(settled)
        payload = Cat(current.get(i, Const(0, 32)) for i in range(WORDS))
        m.d.comb += Value.cast(self.instructions.stream.payload).eq(payload)
        synchronized = self.engine in SYNC_ENGINES
        signal_ready: Value = Const(1)
        wait_ready: Value = Const(1)
        no_wait: Value = Const(int(not synchronized))
        state = Signal(_State)
        signalling = Signal()
        if synchronized:
            port = self.semaphores
            wait, signal = self._masks(current[0])
            m.d.comb += [
                port.wait_mask.eq(wait),
                port.signal_mask.eq(signal),
                port.wait_valid.eq(state == _State.WAIT),
                port.signal_valid.eq(signalling),
            ]
            wait_ready, signal_ready = port.wait_ready, port.signal_ready
            if prefetched:
                no_wait = self._masks(following[0])[0] == 0

        with m.Switch(state):
            with m.Case(_State.EMPTY):
                m.d.comb += [self.idle.eq(~held), free.eq(1)]
            with m.Case(_State.WAIT):
                m.d.comb += self.waiting.eq(1)
                with m.If(wait_ready):
                    m.d.sync += state.eq(_State.ACTIVE)
            with m.Case(_State.ACTIVE):
                m.d.comb += [self.active.eq(1), self.instructions.stream.valid.eq(1)]
                with m.If(self.instructions.stream.ready):
                    m.d.comb += self.completed.eq(1)
                    m.d.comb += [signalling.eq(1), free.eq(signal_ready)]
                    m.d.sync += state.eq(_State.SIGNAL)
            with m.Case(_State.SIGNAL):
                m.d.comb += [signalling.eq(1), free.eq(signal_ready)]
        with m.If(free):
            with m.If(~arrived):
                m.d.sync += state.eq(_State.EMPTY)
            with m.Elif(no_wait):
                m.d.sync += state.eq(_State.ACTIVE)
            with m.Else():
                m.d.sync += state.eq(_State.WAIT)
        return m

    def _masks(self, word: Signal) -> tuple[Value, Value]:
        """The wait and the signal mask that are this engine's."""
        if self.engine != Engine.EPILOGUE:
            return word[4:10], word[10:16]
        shared = word[0:4] == Opcode.GEMM
        return Mux(shared, word[16:22], word[4:10]), Mux(shared, word[22:28], word[10:16])


class InstructionQueues(wiring.Component):
    """The queues of all engines and their front ends.

    The RAM has a region for each engine with `queue_depth` slots of eight words; an eighth region
    holds the addresses of the instructions. One loader, shared by all, brings an instruction to a
    front end that has room in 11 cycles; engines of lower number go first. Members `dma`, `load_a`,
    ... are the engines' instruction ports; all other outputs go by engine number. `empty`: nothing
    is queued, on its way or at work anywhere, and no signal is pending.
    """

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
                "error_pc": Out(24).array(len(Engine)),
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
        m.submodules.memory = memory = Memory(
            shape=32, depth=8 * WORDS << slots, init=[], attrs={"no_rw_check": 1}
        )
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
            write.full.eq((write_slot ^ loaded[write.engine]) == self.depth),
            write_port.en.eq(write.enable),
            write_port.addr.eq(address(write.engine, write_slot, write.index)),
            write_port.data.eq(write.data),
        ]
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
                self.error_pc[e].eq(front.error_pc),
                idle[e].eq(front.idle),
            ]
            wiring.connect(m, front.instructions, wiring.flipped(getattr(self, e.name.lower())))
            if e in SYNC_ENGINES:
                wiring.connect(m, front.semaphores, wiring.flipped(self.semaphores[e]))
        m.d.comb += self.empty.eq(~queued.any() & ~loading & idle.all())
        return m
