"""Queues and tokens of all engines in one RAM, served one engine at a time."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from gateformer.hw.front_end import NUMBER_HIGH, NUMBER_LOW, unpack_number
from gateformer.hw.interfaces import ENGINE_WORDS, FieldPort, instruction_bits
from gateformer.hw.queue_ports import REGIONS, QueuePorts
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.isa import SEMAPHORE_MAX, SYNC_ENGINES, WORDS, Engine, semaphore_exists

_COUNT = len(SYNC_ENGINES)
_BITS = SEMAPHORE_MAX.bit_length()
_TOKENS = len(Engine)
"""The region of the RAM that has no engine: word c of it holds the counters of consumer c."""


class InstructionScheduler(QueuePorts):
    """`InstructionQueues` and `Semaphores` in few flip-flops; for config.prefetch == False.

    One state machine goes from engine to engine. It finds one that is idle and has an instruction
    queued, takes the tokens that this one waits for, if all are there, and hands its words over; or
    one that has completed its instruction, and gives its tokens, once there is room for all. An
    instruction stays in its slot of the RAM until then. So an engine's next instruction follows
    some forty cycles after the one before, if no other engine comes first.

    That signals wait for room all together, before the engine goes on, cannot deadlock: in program
    order no counter exceeds SEMAPHORE_MAX, so the first unfinished instruction finds room.

    Beside the ports of all queues, `fields_dma`, `fields_epilogue` and `fields_vector` are these
    engines' way to words of their instructions: one takes nine cycles, if no engine needs anything
    else. `empty` speaks for all engines once it has been 1 for VISITS cycles. Nothing may be
    written for REGIONS cycles after a reset.
    """

    fields_dma: Any
    fields_epilogue: Any
    fields_vector: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        names = ("fields_dma", "fields_epilogue", "fields_vector")
        fields = {name: In(FieldPort()) for name in names}
        super().__init__(config, fields)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.config.queue_depth
        bits = (depth - 1).bit_length()
        write, lookup = self.write, self.lookup

        memory: Any = Memory(
            shape=32, depth=REGIONS * depth * WORDS, init=[], attrs={"no_rw_check": 1}
        )
        m.submodules.memory = memory
        store, read = memory.write_port(), memory.read_port()

        # Of each engine: the slot that is filled next, and that of the instruction in hand, which
        # is the next one where none is.
        filled = Array(Signal(bits, name=f"filled_{e}") for e in range(REGIONS))
        held = Array(Signal(bits, name=f"held_{e}") for e in range(REGIONS))
        running, posting = Signal(REGIONS), Signal(REGIONS)
        m.d.sync += write.full.eq((filled[write.engine] + 1)[:bits] == held[write.engine])
        with m.If(write.enable & write.index.all()):
            m.d.sync += filled[write.engine].eq(filled[write.engine] + 1)

        engine, index, place = Signal(3), Signal(3), Signal(3)
        slot = Signal(bits)
        mask, giving, checked = Signal(_COUNT), Signal(), Signal()
        act = Signal(_COUNT)
        row, blocked = self._counted(read.data, act, giving)
        clearing, storing, arriving = Signal(), Signal(), Signal()
        go_on, started, given = Signal(), Signal(), Signal()
        fields = {
            Engine.DMA: self.fields_dma,
            Engine.EPILOGUE: self.fields_epilogue,
            Engine.VECTOR: self.fields_vector,
        }
        m.d.comb += [
            slot.eq(held[engine]),
            act.eq(Mux(giving, Mux(mask[0], 1 << engine, 0), mask)),
            read.en.eq(1),
            read.addr.eq(Cat(index, slot, engine)),
            *(port.word.eq(read.data) for port in fields.values()),
            store.en.eq(write.enable | storing),
            store.addr.eq(
                Mux(
                    write.enable,
                    Cat(write.index, filled[write.engine], write.engine),
                    Cat(index, Const(0, bits), Const(_TOKENS, 3)),
                )
            ),
            store.data.eq(Mux(write.enable, write.data, Mux(clearing, 0, row))),
        ]
        m.d.sync += place.eq(index)
        # The host reads the number when the program is over, behind a reset.
        found = Signal()
        low, high = Signal(NUMBER_LOW, reset_less=True), Signal(NUMBER_HIGH, reset_less=True)
        m.d.comb += [
            lookup.found.eq(found),
            lookup.pc.eq(Cat(Const(0, INSTRUCTION_BYTES.bit_length() - 1), low, high)),
        ]
        tokens_read = Cat(index, Const(0, bits), Const(_TOKENS, 3))
        queued = filled[engine] != slot
        with m.FSM(name="state") as fsm:
            with m.State("CLEAR"):
                m.d.comb += [clearing.eq(1), storing.eq(1)]
                m.d.sync += index.eq(index + 1)
                with m.If(index.all()):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += giving.eq(posting.bit_select(engine, 1))
                with m.If(lookup.want):
                    m.next = "LOOKUP"
                with m.Elif(
                    posting.bit_select(engine, 1) | (queued & ~running.bit_select(engine, 1))
                ):
                    m.next = "MASK"
                for e, port in fields.items():
                    with m.Elif(port.want & (engine == e)):
                        m.d.comb += read.addr.eq(Cat(port.index, slot, engine))
                        m.next = "FIELD"
                with m.Else():
                    m.d.comb += go_on.eq(1)
            with m.State("FIELD"):
                m.d.comb += go_on.eq(1)
                m.d.comb += [port.valid.eq(engine == e) for e, port in fields.items()]
                m.next = "LOOK"
            # Word 0 is there.
            with m.State("MASK"):
                wanted = Mux(giving, read.data[10:16], read.data[4:10])
                m.d.sync += [mask.eq(wanted & self._existing(m, engine)), checked.eq(0)]
                m.d.sync += index.eq(Mux(giving, 0, engine))
                m.next = "COUNTERS"
                with m.If(giving & (engine == Engine.ARRAY)):
                    m.d.comb += [given.eq(1), go_on.eq(1)]
                    m.next = "LOOK"
            with m.State("COUNTERS"):
                m.d.comb += read.addr.eq(tokens_read)
                m.next = "TAKE"
                with m.If(giving):
                    m.next = "GIVE"
            with m.State("TAKE"):
                m.d.comb += [read.addr.eq(tokens_read), storing.eq(~blocked)]
                with m.If(blocked):
                    m.d.comb += go_on.eq(1)
                    m.next = "LOOK"
                with m.Elif(~write.enable):
                    m.d.sync += index.eq(0)
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += started.eq(arriving & place.all())
                m.d.sync += [index.eq(index + 1), arriving.eq(~started)]
                with m.If(started):
                    m.d.comb += go_on.eq(1)
                    m.next = "LOOK"
            # All consumers are looked at before one gets a token.
            with m.State("GIVE"):
                m.d.comb += [read.addr.eq(tokens_read), storing.eq(checked & mask[0])]
                with m.If(~checked & blocked):
                    m.d.comb += go_on.eq(1)
                    m.next = "LOOK"
                with m.Elif(~(storing & write.enable)):
                    m.d.sync += [index.eq(index + 1), mask.eq(mask.rotate_right(1))]
                    m.next = "COUNTERS"
                    with m.If(index == _COUNT - 1):
                        m.d.sync += [index.eq(0), checked.eq(1)]
                        with m.If(checked):
                            m.d.comb += [given.eq(1), go_on.eq(1)]
                            m.next = "LOOK"
            with m.State("LOOKUP"):
                # The engine's word 0, then word 1.
                m.d.sync += [engine.eq(lookup.engine), index.eq(0)]
                m.next = "NUMBER"
            with m.State("NUMBER"):
                m.d.sync += index.eq(index + 1)
                with m.If(index == 1):
                    m.d.sync += low.eq(unpack_number(0, read.data))
                with m.If(index == 2):
                    m.d.sync += high.eq(unpack_number(1, read.data))
                    m.next = "FOUND"
            with m.State("FOUND"):
                m.d.comb += found.eq(1)
            looking = fsm.ongoing("LOOK")
        with m.If(go_on):
            m.d.sync += [engine.eq(engine + 1), index.eq(0)]

        idle = ~(running | posting).any()
        m.d.sync += self.empty.eq(looking & idle & ~queued)
        for e in Engine:
            chosen = Signal(name=f"chosen_{e.name.lower()}")
            m.d.comb += chosen.eq(engine == e)
            self._engine(m, e, chosen, read.data, arriving, place, started, given, running, posting)
            with m.If(given & chosen):
                m.d.sync += held[e].eq(held[e] + 1)
            with m.If(chosen & fsm.ongoing("TAKE")):
                m.d.sync += self.waiting[e].eq(blocked)
        return m

    def _counted(self, row: Value, act: Signal, giving: Signal) -> tuple[Value, Value]:
        """The counters of a consumer after tokens of the producers in `act` were given or taken,
        and whether one of these had no room or no token."""
        following, blocked = [], []
        for p in range(_COUNT):
            carry: Value = act[p]
            for i in range(_BITS):
                bit = row[_BITS * p + i]
                following.append(bit ^ carry)
                carry = carry & (bit == giving)
            blocked.append(carry)
        return Cat(following), Cat(blocked).any()

    def _existing(self, m: Module, engine: Signal) -> Signal:
        """The engines with which this one has counters, as a mask."""
        mask = Signal(_COUNT, name="existing")
        with m.Switch(engine):
            for e in SYNC_ENGINES:
                with m.Case(e):
                    m.d.comb += mask.eq(
                        sum(semaphore_exists(e, other) << other for other in SYNC_ENGINES)
                    )
        return mask

    def _engine(
        self,
        m: Module,
        e: Engine,
        chosen: Signal,
        word: Value,
        arriving: Signal,
        place: Signal,
        started: Signal,
        given: Signal,
        running: Signal,
        posting: Signal,
    ) -> None:
        """The registers of an engine's instruction, bits without a reader left out."""
        stream = getattr(self, e.name.lower()).stream
        words = {
            i: Signal(32, name=f"{e.name.lower()}_{i}", reset_less=True) for i in ENGINE_WORDS[e]
        }
        for i, register in words.items():
            with m.If(arriving & chosen & (place == i)):
                m.d.sync += register.eq(word)
        m.d.sync += [
            running[e].eq((started & chosen) | (running[e] & ~stream.ready)),
            posting[e].eq((posting[e] & ~(given & chosen)) | self.completed[e]),
        ]
        m.d.comb += [
            stream.valid.eq(running[e]),
            Value.cast(stream.payload).eq(
                Cat(words.get(i, Const(0, 32)) for i in range(WORDS)) & instruction_bits(e)
            ),
            self.active[e].eq(running[e]),
            self.completed[e].eq(running[e] & stream.ready),
            self.pc[e].eq(
                Cat(
                    Const(0, INSTRUCTION_BYTES.bit_length() - 1),
                    *(unpack_number(i, words[i]) for i in (0, 1)),
                )
            ),
        ]
