"""The top of an accelerator: control, engines, memories, and nothing of a board or a host link."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.array_engine import ArrayEngine
from gateformer.hw.counters import Counters, CycleCounter
from gateformer.hw.dma import Dma
from gateformer.hw.dram_arbiter import DramArbiter
from gateformer.hw.dram_turns import DramTurns
from gateformer.hw.epilogue import Epilogue, asks_for_fields
from gateformer.hw.fetch import Fetch
from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.hw.instruction_scheduler import InstructionScheduler
from gateformer.hw.interfaces import DramRead, DramWrite, pipelined
from gateformer.hw.local_fetch import LocalFetch
from gateformer.hw.local_memory import LocalMemory, error_latency
from gateformer.hw.probe import Probe, connect_probe
from gateformer.hw.registers import RegisterBus, Registers
from gateformer.hw.runtime_lengths import RuntimeLengths
from gateformer.hw.semaphores import Semaphores
from gateformer.hw.sequencer import Sequencer
from gateformer.hw.vector_engine import VectorEngine
from gateformer.hw.vector_processor import VectorProcessor
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, Engine
from gateformer.spec.registers import Counter

TRACED = (Engine.EPILOGUE, Engine.VECTOR, Engine.DMA)
"""The engines that write local memory."""


class Trace(wiring.Signature):
    """What one engine writes, for a monitor in simulation.

    `taken`: local memory takes `data` under `mask` to word `address`. `retire`: the instruction at
    byte address `pc` completes; its writes were taken in this cycle or before.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "taken": Out(1),
                "address": Out(16),
                "data": Out(8 * config.word_bytes),
                "mask": Out(config.word_bytes),
                "retire": Out(1),
                "pc": Out(24),
            }
        )


class Accelerator(wiring.Component):
    """`registers` is the host's bus; `running` is 1 while a program runs; `dram_read` and
    `dram_write` are there where config.dram has them.

    With `trace`, for simulation only: `trace_epilogue`, `trace_vector` and `trace_dma` show what
    these engines do (what DMA writes to DRAM passes `dram_write`), `probe` what all engines wait
    for, and `stall` keeps back the reads (bit 0) and the writes (bit 1) of local memory in a cycle.
    """

    registers: Any
    running: Signal
    dram_read: Any
    dram_write: Any
    stall: Signal
    probe: Any

    def __init__(self, config: AcceleratorConfig, *, trace: bool = False) -> None:
        self.config = config
        self.trace = trace
        members: dict[str, Any] = {"registers": In(RegisterBus()), "running": Out(1)}
        if config.dram != "none":
            members["dram_read"] = Out(DramRead(config))
        if config.dram == "readwrite":
            members["dram_write"] = Out(DramWrite(config))
        if trace:
            members["stall"] = In(2)
            members["probe"] = Out(Probe())
            for engine in TRACED:
                members[f"trace_{engine.name.lower()}"] = Out(Trace(config))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        registers, sequencer = Registers(config), Sequencer(config)
        counters: Any = Counters() if config.counters else CycleCounter()
        m.submodules.registers, m.submodules.sequencer = registers, sequencer
        m.submodules.counters = counters
        queues: Any = InstructionQueues(config) if config.prefetch else InstructionScheduler(config)
        memory: Any = LocalMemory(config)
        array, epilogue = ArrayEngine(config), Epilogue(config)
        serial = config.multipliers == "serial"
        vector: Any = VectorProcessor(config) if serial else VectorEngine(config)
        for name, unit in (
            ("queues", queues),
            ("memory", memory),
            ("array", array),
            ("epilogue", epilogue),
            ("vector", vector),
        ):
            m.submodules[name] = self._flushed(m, unit, name, sequencer)

        wiring.connect(m, registers.bus, wiring.flipped(self.registers))
        wiring.connect(m, sequencer.queue, queues.write)
        wiring.connect(m, sequencer.lookup, queues.lookup)
        idle: Value = Const(1, 1)
        if config.prefetch:
            semaphores: Any = Semaphores()
            m.submodules.semaphores = self._flushed(m, semaphores, "semaphores", sequencer)
            idle = semaphores.idle
            for e in SYNC_ENGINES:
                wiring.connect(m, queues.semaphores[e], semaphores.ports[e])
        if asks_for_fields(config):
            wiring.connect(m, queues.fields_epilogue, epilogue.fields)
            wiring.connect(m, queues.fields_vector, vector.fields)
        for port, engine_port in (
            (queues.load_a, array.load_a),
            (queues.load_b, array.load_b),
            (queues.array, array.array),
            (queues.load_p, epilogue.load_p),
            (queues.epilogue, epilogue.instructions),
            (queues.vector, vector.instructions),
            (array.tiles, epilogue.tiles),
            (array.read_a, memory.read_load_a),
            (array.read_b, memory.read_load_b),
            (epilogue.read_p, memory.read_load_p),
            (epilogue.read, memory.read_epilogue),
            (epilogue.write, memory.write_epilogue),
            (vector.read, memory.read_vector),
            (vector.write, memory.write_vector),
        ):
            wiring.connect(m, port, engine_port)
        if registers.has_local:
            wiring.connect(m, registers.read, memory.read_host)
            wiring.connect(m, registers.write, memory.write_host)
        beats_in, beats_out = Signal(), Signal()
        progress = self._dram(m, registers, sequencer, queues, memory, beats_in, beats_out)
        if serial:
            # Its instructions may take longer than the watchdog waits.
            progress = Cat(progress, _moves(vector.write.request))

        # Late by two cycles: it comes from all corners.
        completed, progressed = Signal(), Signal()
        moved = Signal(len(progress))
        m.d.sync += [
            completed.eq(queues.completed.any()),
            moved.eq(progress),
            progressed.eq(completed | moved.any()),
        ]
        m.submodules.lengths = lengths = RuntimeLengths(config)
        for name in ("start", "stop"):
            m.d.comb += getattr(sequencer, name).eq(getattr(registers, name))
        m.d.comb += [
            lengths.write.eq(registers.write_length),
            lengths.sample.eq(registers.sample),
            lengths.length.eq(registers.length),
            lengths.select.eq(sequencer.sample),
            sequencer.length.eq(lengths.current),
        ]
        for name in ("running", "done", "error", "code", "engine", "error_pc"):
            m.d.comb += getattr(registers, name).eq(getattr(sequencer, name))
        m.d.comb += [
            self.running.eq(sequencer.running),
            sequencer.waiting.eq(queues.waiting),
            sequencer.active.eq(queues.active),
            sequencer.empty.eq(queues.empty & idle),
            sequencer.local_error.eq(memory.error),
            sequencer.local_engine.eq(memory.error_client),
            sequencer.progress.eq(progressed),
            memory.stall.eq(self.stall if self.trace else 0),
        ]
        events = self._events(queues, array)
        events[Counter.DRAM_READ], events[Counter.DRAM_WRITE] = beats_in, beats_out
        # Counted a cycle late, to keep the counters out of the engines' paths.
        m.d.sync += [
            counters.events.eq(Cat(events[counter] for counter in Counter)),
            counters.run.eq(sequencer.running),
        ]
        m.d.comb += [
            counters.clear.eq(sequencer.running & ~counters.run),
            counters.select.eq(registers.select),
            registers.value.eq(counters.value),
            registers.settled.eq(~counters.busy & ~sequencer.running),
        ]
        if self.trace:
            self._trace(m, queues, memory)
            connect_probe(m, self.probe, queues, memory, array, getattr(m.submodules, "dma", None))
        return m

    def _flushed(self, m: Module, unit: Any, name: str, sequencer: Sequencer) -> Any:
        """The unit, reset between programs: all that a program leaves behind goes. Each has a
        register of its own for that, for the way from one to all would be long."""
        reset = Signal(name=f"reset_{name}")
        m.d.sync += reset.eq(sequencer.flush)
        return ResetInserter(reset)(unit)

    def _dram(
        self,
        m: Module,
        registers: Registers,
        sequencer: Sequencer,
        queues: Any,
        memory: Any,
        beats_in: Signal,
        beats_out: Signal,
    ) -> Value:
        """The fetch and what there is of external memory; returns 1 where these move something."""
        config = self.config
        fetch: Any = LocalFetch(config) if config.dram == "none" else Fetch(config)
        m.submodules.fetch = fetch
        wiring.connect(m, fetch.words, sequencer.words)
        m.d.comb += [
            fetch.program.eq(registers.program),
            fetch.restart.eq(sequencer.restart),
            fetch.abort.eq(sequencer.abort),
            sequencer.missing.eq(fetch.missing),
        ]
        if config.dram == "none":
            wiring.connect(m, fetch.read, memory.read_dma)
            m.d.comb += sequencer.quiet.eq(fetch.quiet)
            return _moves(fetch.read.request)

        dma: Any = Dma(config)
        arbiter: Any = DramArbiter(config) if pipelined(config) else DramTurns(config)
        m.submodules.dma = self._flushed(m, dma, "dma", sequencer)
        m.submodules.dram_arbiter = arbiter
        wiring.connect(m, queues.dma, dma.instructions)
        if not config.prefetch:
            wiring.connect(m, queues.fields_dma, dma.fields)
        wiring.connect(m, dma.write, memory.write_dma)
        wiring.connect(m, fetch.dram_read, arbiter.fetch)
        wiring.connect(m, dma.dram_read, arbiter.dma)
        wiring.connect(m, arbiter.port, wiring.flipped(self.dram_read))
        for unit in (fetch, dma):
            m.d.comb += [
                unit.window_base.eq(registers.window_base),
                unit.window_size.eq(registers.window_size),
            ]
        m.d.comb += [
            dma.abort.eq(sequencer.abort),
            sequencer.quiet.eq(fetch.quiet & dma.quiet),
            beats_in.eq(_moves(arbiter.port.data)),
        ]
        # As late as what local memory reports: the queues look back by as much.
        dma_error: Value = dma.error
        for stage in range(error_latency(config) - 2):
            late = Signal(name=f"dma_error_{stage}")
            m.d.sync += late.eq(dma_error)
            dma_error = late
        m.d.comb += sequencer.dma_error.eq(dma_error)
        progress = [beats_in, _moves(arbiter.port.burst)]
        if config.dram == "readwrite":
            wiring.connect(m, dma.dram_write, wiring.flipped(self.dram_write))
            wiring.connect(m, dma.read, memory.read_dma)
            m.d.comb += beats_out.eq(_moves(dma.dram_write.data))
            progress += [beats_out, _moves(dma.dram_write.burst)]
        return Cat(progress)

    def _events(self, queues: Any, array: ArrayEngine) -> dict[Counter, Value]:
        """What the performance counters count, external memory aside."""
        return {
            **{Counter[f"{e.name}_BUSY"]: queues.active[e] for e in SYNC_ENGINES},
            **{Counter[f"{e.name}_SEMAPHORE"]: queues.waiting[e] for e in TRACED},
            Counter.ARRAY_BUSY: array.busy,
            Counter.ARRAY_WAIT_A: array.wait_a,
            Counter.ARRAY_WAIT_B: array.wait_b,
            Counter.ARRAY_WAIT_DRAIN: array.wait_drain,
        }

    def _trace(self, m: Module, queues: Any, memory: Any) -> None:
        for e in TRACED:
            trace = getattr(self, f"trace_{e.name.lower()}")
            request = getattr(memory, f"write_{e.name.lower()}").request
            m.d.comb += [
                trace.taken.eq(_moves(request)),
                trace.address.eq(request.payload.address),
                trace.data.eq(request.payload.data),
                trace.mask.eq(request.payload.mask),
                trace.retire.eq(queues.completed[e]),
                trace.pc.eq(queues.pc[e]),
            ]


def _moves(port: Any) -> Value:
    """1 in the cycles in which a stream transfers."""
    return port.valid & port.ready
