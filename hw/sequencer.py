"""The sequencer: runs a program from start to done or error."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.dispatcher import Dispatcher
from gateformer.hw.queue_ports import VISITS, QueueLookup, QueueWrite
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SAMPLE_BITS, Engine
from gateformer.spec.registers import ErrorCode

REST = VISITS + 6
"""Cycles for which the queues must have been empty: they are looked at in turns, and local memory
reports errors of the last accesses late."""


class Sequencer(wiring.Component):
    """Runs one program after each `start`, and keeps how it ended.

    From the cycle after `start` on `running` is 1. Once fetch and DMA are `quiet`, `flush` is 1 for
    a cycle, and `restart` in the next one, in which engines, queues, semaphores and the memory
    pipeline are reset. That starts the fetch, and the :class:`Dispatcher` gets to work on `words`.
    After a HALT, when the queues have been `empty` for REST cycles, the program is `done`. `start`
    while `running` is ignored. `length` is the runtime length of `sample`, at most three cycles
    late.

    `stop`, a pulse of `local_error` (of engine `local_engine`) or of `dma_error`, an illegal
    instruction, an instruction that is `missing`, and watchdog_cycles without `progress` or
    dispatch end it with `error`, `code`, `engine` and `error_pc`, two cycles later, or some forty
    where the queues must `lookup` the instruction. A watchdog names the first engine that is
    `waiting` for tokens, else the first `active` one, else (like an error of the dispatcher and a
    stop) the instruction being dispatched, with engine 0. Without `error`, `error_pc` means
    nothing. `abort` is 1 from the end of a program to the `restart` of the next; after an error,
    `flush` is 1 once more as soon as `quiet`. `stop` without a program clears `error`.
    """

    start: Signal
    stop: Signal
    length: Signal
    sample: Signal
    running: Signal
    done: Signal
    error: Signal
    code: Signal
    engine: Signal
    error_pc: Signal
    words: Any
    missing: Signal
    restart: Signal
    queue: Any
    lookup: Any
    waiting: Signal
    active: Signal
    empty: Signal
    local_error: Signal
    local_engine: Signal
    dma_error: Signal
    progress: Signal
    quiet: Signal
    abort: Signal
    flush: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        engines = len(Engine)
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "length": In(12),
                "sample": Out(SAMPLE_BITS),
                "running": Out(1),
                "done": Out(1),
                "error": Out(1),
                "code": Out(4),
                "engine": Out(3),
                "error_pc": Out(24),
                "words": In(stream.Signature(unsigned(32))),
                "missing": In(1),
                "restart": Out(1),
                "queue": Out(QueueWrite()),
                "lookup": Out(QueueLookup()),
                "waiting": In(engines),
                "active": In(engines),
                "empty": In(1),
                "local_error": In(1),
                "local_engine": In(3),
                "dma_error": In(1),
                "progress": In(1),
                "quiet": In(1),
                "abort": Out(1),
                "flush": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dispatcher = dispatcher = Dispatcher(self.config)
        wiring.connect(m, dispatcher.words, wiring.flipped(self.words))
        wiring.connect(m, dispatcher.queue, wiring.flipped(self.queue))
        failed, working = Signal(), Signal()
        # What stays until a restart is looked at a cycle late.
        illegal, ran_out = Signal(), Signal()
        m.d.sync += [
            illegal.eq(dispatcher.illegal & ~self.restart),
            ran_out.eq(dispatcher.wants & ~self.words.valid & self.missing),
        ]
        expired = self._watchdog(m, dispatcher.queue.enable)
        m.d.comb += [
            dispatcher.restart.eq(self.restart),
            dispatcher.enable.eq(working),
            dispatcher.length.eq(self.length),
            self.sample.eq(dispatcher.sample),
        ]

        # The engine that a watchdog names; nothing changes any more when it expires.
        suspects, waiting, active = (Signal(len(Engine)) for _ in range(3))
        stuck, suspect = Signal(), Signal(3)
        m.d.comb += suspects.eq(Mux(waiting.any(), waiting, active))
        m.d.sync += [waiting.eq(self.waiting), active.eq(self.active), stuck.eq(suspects.any())]
        for e in reversed(Engine):
            with m.If(suspects[e]):
                m.d.sync += suspect.eq(e)

        # What ends the program, the first of these before the others; a register, so that the long
        # way from its sources ends here.
        code, engine, of_engine = Signal(4), Signal(3), Signal()
        m.d.sync += [code.eq(ErrorCode.NONE), engine.eq(0), of_engine.eq(0)]
        with m.If(self.running & self.stop):
            m.d.sync += code.eq(ErrorCode.STOPPED)
        with m.Elif(working & self.local_error):
            m.d.sync += code.eq(ErrorCode.LOCAL_ADDRESS)
            m.d.sync += [of_engine.eq(1), engine.eq(self.local_engine)]
        with m.Elif(working & self.dma_error):
            m.d.sync += code.eq(ErrorCode.DRAM_ADDRESS)
            m.d.sync += [of_engine.eq(1), engine.eq(Engine.DMA)]
        with m.Elif(working & illegal):
            m.d.sync += code.eq(ErrorCode.ILLEGAL_INSTRUCTION)
        with m.Elif(working & ran_out):
            m.d.sync += code.eq(ErrorCode.DRAM_ADDRESS)
        with m.Elif(self.running & expired):
            m.d.sync += code.eq(ErrorCode.WATCHDOG)
            with m.If(working & stuck):
                m.d.sync += [of_engine.eq(1), engine.eq(suspect)]
        m.d.comb += failed.eq(code != ErrorCode.NONE)

        at_rest, resting = Signal(), Signal(range(REST))
        rested = resting == REST - 1
        m.d.sync += at_rest.eq(dispatcher.halted & self.empty)

        # An instruction at an engine is looked up before the program ends.
        asked = Signal()
        ends = Signal()
        m.d.comb += [
            ends.eq(self.running & failed & ~self.lookup.want),
            self.lookup.engine.eq(self.engine),
            self.error_pc.eq(Mux(asked, self.lookup.pc, dispatcher.pc)),
        ]
        # A register, for those whom it stops are far.
        abort = Signal(init=1)
        m.d.comb += self.abort.eq(abort)
        m.d.sync += [self.flush.eq(0), resting.eq(0), abort.eq(1)]
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.comb += self.running.eq(1)
                with m.If(failed):
                    m.next = "DRAIN"
                with m.Elif(self.quiet):
                    m.d.sync += self.flush.eq(1)
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                m.d.comb += self.running.eq(1)
                m.d.sync += abort.eq(failed)
                m.next = "RESTART"
                with m.If(failed):
                    m.next = "DRAIN"
            with m.State("RESTART"):
                m.d.comb += [self.running.eq(1), self.restart.eq(1)]
                m.d.sync += abort.eq(failed)
                m.next = "RUN"
                with m.If(failed):
                    m.next = "DRAIN"
            with m.State("RUN"):
                m.d.comb += [self.running.eq(1), working.eq(1)]
                m.d.sync += abort.eq(failed | rested)
                with m.If(at_rest & ~rested):
                    m.d.sync += resting.eq(resting + 1)
                with m.If(failed):
                    m.next = "DRAIN"
                    with m.If(of_engine):
                        m.next = "LOOKUP"
                with m.Elif(rested):
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("LOOKUP"):
                m.d.comb += [self.running.eq(1), self.lookup.want.eq(1)]
                with m.If(self.lookup.found):
                    m.d.sync += self.error.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += self.lookup.want.eq(1)
                with m.If(self.start):
                    m.next = "PREPARE"
                with m.Elif(self.quiet):
                    m.d.sync += self.flush.eq(1)
                    m.next = "IDLE"

        with m.If(ends):
            m.d.sync += [self.code.eq(code), self.engine.eq(engine), asked.eq(of_engine)]
            m.d.sync += self.error.eq(~of_engine)
        with m.Elif(~self.running & (self.start | self.stop)):
            m.d.sync += [self.error.eq(0), self.code.eq(ErrorCode.NONE), self.engine.eq(0)]
            with m.If(self.start):
                m.d.sync += [self.done.eq(0), asked.eq(0)]
        return m

    def _watchdog(self, m: Module, queue_write: Signal) -> Signal:
        """1 after watchdog_cycles of a running program without progress or dispatch."""
        # Counted below 0, so that the sign tells.
        patience = self.config.watchdog_cycles - 2
        left, expired = Signal(range(-1, patience + 1), init=patience), Signal()
        moving = Signal()
        m.d.comb += expired.eq(left[-1])
        m.d.sync += moving.eq(~self.running | self.start | self.progress | queue_write)
        with m.If(moving):
            m.d.sync += left.eq(patience)
        with m.Elif(~expired):
            m.d.sync += left.eq(left - 1)
        return expired
