"""The instruction queues of all engines in one RAM, and who brings instructions to the engines."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out

from gateformer.hw.front_end import NUMBER_HIGH, NUMBER_LOW, FrontEnd, unpack_number
from gateformer.hw.interfaces import SemaphorePort
from gateformer.hw.local_memory import error_latency
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.queue_ports import REGIONS, QueuePorts
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine

HELD = 2
"""Slots of a queue that keep instructions which are at the front end: their addresses are read
there when an error wants them."""


def blame_delay(config: AcceleratorConfig) -> int:
    """Cycles by which the addresses that a lookup finds lie back: what local memory reports of an
    access comes late, and then the next instruction may be at the engine."""
    return error_latency(config) + 2


class InstructionQueues(QueuePorts):
    """The queues of all engines and their front ends, where config.prefetch.

    The RAM has a region for each engine with `queue_depth` slots of eight words, HELD of them for
    the instructions at the front end. The queues are looked at in turns, one a cycle; the first
    that holds an instruction for which its front end has room is served: its words go there one a
    cycle. So an instruction is at its front end 12 to 20 cycles after it was handed over, if no
    other comes first.

    `empty`: nothing is on its way or at work anywhere, no signal is to be handed in, and the queues
    that were looked at are empty: it speaks for all once it has been 1 for VISITS
    cycles. After a reset the queues take REGIONS cycles to forget what they held; nothing may be
    written until then.
    """

    semaphores: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config, {"semaphores": Out(SemaphorePort()).array(len(SYNC_ENGINES))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.config.queue_depth
        bits = (depth - 1).bit_length()
        write, lookup, count = self.write, self.lookup, len(Engine)

        # A slot is read only after it was handed over and written only after its instruction is
        # complete, so that no address is read and written in one cycle.
        m.submodules.memory = memory = WordRam(
            depth=REGIONS * depth * WORDS, width_bytes=4, family=self.config.family
        )

        # For each engine, the slot that is filled next and the one that is loaded next: small RAMs,
        # each twice, for the writer and the loader look at them at their own pace.
        names = ("filled_here", "loaded_there", "filled_there", "loaded_here")
        pointers: dict[str, Any] = {
            name: Memory(shape=bits, depth=REGIONS, init=[]) for name in names
        }
        for name, pointer in pointers.items():
            m.submodules[name] = pointer
        ports = {n: (p.write_port(), p.read_port(domain="comb")) for n, p in pointers.items()}
        engine, visited = Signal(3), Signal(3)
        for name, (_, port) in ports.items():
            m.d.comb += port.addr.eq(write.engine if name.endswith("_here") else visited)

        # The writer's side ("here").
        slot = ports["filled_here"][1].data
        # A cycle late: an instruction is read several cycles after it was handed over.
        m.d.sync += [
            memory.write_mask.eq(write.enable.replicate(4)),
            memory.write_address.eq(Cat(write.index, slot, write.engine)),
            memory.write_data.eq(write.data),
        ]
        after = Signal(bits)
        m.d.comb += after.eq(slot + HELD)
        m.d.sync += write.full.eq(after == ports["loaded_here"][1].data)
        for name in ("filled_here", "filled_there"):
            port = ports[name][0]
            m.d.comb += [
                port.en.eq(write.enable & write.index.all()),
                port.addr.eq(write.engine),
                port.data.eq(slot + 1),
            ]

        # The loader's side ("there"): it looks at queue after queue, then reads one's words.
        want, behind, idle = Signal(count), Signal(count), Signal(count)
        clearing = Signal(init=1)
        queued, wanted, begin = Signal(), Signal(), Signal()
        asked, look, looking = Signal(), Signal(), Signal()
        reading, index, number = Signal(), Signal(3), Signal(bits, reset_less=True)
        delay = blame_delay(self.config)
        late, coming, resting = Signal(2 + delay), Signal(), Signal(init=1)
        filled, loaded = ports["filled_there"][1].data, ports["loaded_there"][1].data
        moved, aimed = Signal(bits, reset_less=True), Signal(2)
        step, found, there = Signal(), Signal(), Signal()
        m.d.comb += [
            begin.eq(queued & wanted & ~asked),
            # It stays there, so that `before` and `moved` settle; nothing begins any more.
            found.eq(resting & asked & there),
            step.eq(resting & ~begin & ~found),
            look.eq(resting & aimed.all() & ~looking),
        ]
        m.d.sync += [
            late.eq(Cat(reading, late)),
            coming.eq(reading | late[:-2].any()),
            resting.eq(~(begin | look | reading | coming)),
            queued.eq(0),
            asked.eq(lookup.want),
            aimed.eq(Cat(found, aimed)),
        ]
        with m.If(begin | look):
            m.d.sync += reading.eq(1)
        with m.Elif(reading):
            m.d.sync += [reading.eq(~index.all()), index.eq(index + 1)]
        with m.If(step):
            m.d.sync += [
                visited.eq(visited + 1),
                engine.eq(visited),
                there.eq(lookup.want & (visited == lookup.engine)),
                number.eq(loaded),
                queued.eq((filled != loaded) & ~clearing),
                wanted.eq(want.bit_select(visited, 1)),
            ]
        with m.If(look):
            m.d.sync += [looking.eq(1), number.eq(moved)]
        with m.If(visited.all()):
            m.d.sync += clearing.eq(0)

        # A word is there after two cycles.
        word, last = memory.read_data, Signal(1 + delay)
        place = [Signal(3, name=f"place_{i}", reset_less=True) for i in range(2)]
        m.d.comb += [
            memory.read_address.eq(Cat(index, number, engine)),
            last[0].eq(late[1] & place[1].all() & ~looking),
        ]
        m.d.sync += [
            place[0].eq(index),
            place[1].eq(place[0]),
            last[1:].eq(last),
        ]
        # A load whose end comes too late for the past that a lookup sees does not count.
        for name in ("loaded_here", "loaded_there"):
            port = ports[name][0]
            m.d.comb += [
                port.en.eq(clearing | (last[-1] & ~lookup.want)),
                port.addr.eq(Mux(clearing, visited, engine)),
                port.data.eq(Mux(clearing, filled, moved)),
            ]

        # What the lookup reads: the instruction loaded last, or the one before. That is decided
        # from the past, in which the loaded slots are, too.
        past = [behind, *(Signal(count, name=f"behind_{i}") for i in range(delay))]
        for old, new in pairwise(past):
            with m.If(~lookup.want):
                m.d.sync += new.eq(old)
        before = Signal()
        m.d.sync += [
            before.eq(past[-1].bit_select(engine, 1)),
            moved.eq(number + Mux(asked, Cat(~before, Const(-1, bits - 1)), Const(1, bits))),
        ]
        low, high = Signal(NUMBER_LOW, reset_less=True), Signal(NUMBER_HIGH, reset_less=True)
        for i, part in enumerate((low, high)):
            with m.If(looking & late[1] & (place[1] == i)):
                m.d.sync += part.eq(unpack_number(i, word))
        m.d.comb += [
            lookup.pc.eq(Cat(Const(0, INSTRUCTION_BYTES.bit_length() - 1), low, high)),
            lookup.found.eq(looking & resting),
        ]

        for e in Engine:
            front = FrontEnd(e)
            m.submodules[f"front_{e.name.lower()}"] = front
            m.d.sync += front.load.select.eq(late[0] & ~looking & (engine == e))
            m.d.comb += [
                want[e].eq(front.load.want),
                front.load.index.eq(place[1]),
                front.load.last.eq(place[1].all()),
                front.load.word.eq(word),
                self.waiting[e].eq(front.waiting),
                self.active[e].eq(front.active),
                self.completed[e].eq(front.completed),
                self.pc[e].eq(front.pc),
                behind[e].eq(front.behind),
                idle[e].eq(front.idle),
            ]
            wiring.connect(m, front.instructions, wiring.flipped(getattr(self, e.name.lower())))
            if e in SYNC_ENGINES:
                wiring.connect(m, front.semaphores, wiring.flipped(self.semaphores[e]))
        m.d.sync += self.empty.eq(resting & ~queued & ~clearing & idle.all())
        return m
