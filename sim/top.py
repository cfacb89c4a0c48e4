"""The simulation top: an accelerator, its DRAM, digests of what it writes, random stalls."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.accelerator import Accelerator
from gateformer.hw.probe import Probe
from gateformer.hw.registers import REQUEST
from gateformer.sim.digest_monitor import DigestMonitor
from gateformer.sim.dram import DramModel
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming
from gateformer.spec.isa import Engine

DRAM_BYTES = 32 << 20
"""Simulated DRAM, as much as a ULX3S has."""


class SimulationTop(wiring.Component):
    """The register bus as plain ports, whose names C++ can spell. `running`: a program runs.

    `retire` bit i is 1 for a cycle when an instruction of engine i of (DMA, EPILOGUE, VECTOR) has
    completed, with its digest in `digest_i`. `probe_x` is member x of the accelerator's `Probe`;
    `probe_beats` counts the beats that DRAM moves in a cycle, `probe_occupied` is 1 while a burst,
    a row miss or a refresh has its bus.
    dram_stall, local_stall: thresholds t; in t/256 of all cycles, at random, the DRAM port (or the
    local memory's reads, and independently its writes) stand still.
    """

    def __init__(self, config: AcceleratorConfig, *, timing: DramTiming = SDRAM) -> None:
        self.config = config
        self.timing = timing
        members: dict[str, Any] = {
            "request_valid": In(1),
            "request_ready": Out(1),
            "request_payload": In(REQUEST.size),
            "response_valid": Out(1),
            "response_ready": In(1),
            "response_payload": Out(32),
            "running": Out(1),
            "dram_stall": In(8),
            "local_stall": In(8),
            "retire": Out(3),
        }
        for index in range(3):
            members[f"digest_{index}"] = Out(32)
        for name, member in Probe().members.items():
            members[f"probe_{name}"] = Out(member.shape)
        members |= {"probe_beats": Out(2), "probe_occupied": Out(1)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.accelerator = accelerator = Accelerator(config, trace=True)
        bus = accelerator.registers
        m.d.comb += [
            bus.request.valid.eq(self.request_valid),
            bus.request.payload.eq(self.request_payload),
            self.request_ready.eq(bus.request.ready),
            self.response_valid.eq(bus.response.valid),
            self.response_payload.eq(bus.response.payload),
            bus.response.ready.eq(self.response_ready),
            self.running.eq(accelerator.running),
        ]
        random = self._random(m)
        m.d.comb += accelerator.stall.eq(
            Cat(random[0:8] < self.local_stall, random[8:16] < self.local_stall)
        )
        for name in Probe().members:
            m.d.comb += getattr(self, f"probe_{name}").eq(getattr(accelerator.probe, name))
        monitors = [
            self._monitor(m, engine, getattr(accelerator, f"trace_{engine.name.lower()}"))
            for engine in (Engine.DMA, Engine.EPILOGUE, Engine.VECTOR)
        ]
        if config.dram != "none":
            m.submodules.dram = dram = DramModel(config, size_bytes=DRAM_BYTES, timing=self.timing)
            wiring.connect(m, accelerator.dram_read, dram.read)
            beats = dram.read.data.valid & dram.read.data.ready
            m.d.comb += [
                dram.stall.eq(random[16:24] < self.dram_stall),
                self.probe_occupied.eq(dram.occupied),
            ]
            if config.dram == "readwrite":
                wiring.connect(m, accelerator.dram_write, dram.write)
                self._dram_writes(m, accelerator, monitors[0])
                beats += dram.write.data.valid & dram.write.data.ready
            m.d.comb += self.probe_beats.eq(beats)
        for index, monitor in enumerate(monitors):
            m.d.comb += [
                self.retire[index].eq(monitor.valid),
                getattr(self, f"digest_{index}").eq(monitor.digest),
            ]
        return m

    def _random(self, m: Module) -> Signal:
        """24 random bits a cycle, from a 32-bit xorshift register (Marsaglia 2003)."""
        state = Signal(32, init=2463534242)
        a, b, c = (Signal(32, name=f"xorshift_{n}") for n in "abc")
        m.d.comb += [a.eq(state ^ (state << 13)), b.eq(a ^ (a >> 17)), c.eq(b ^ (b << 5))]
        m.d.sync += state.eq(c)
        return state

    def _monitor(self, m: Module, engine: Engine, trace: Any) -> DigestMonitor:
        word = self.config.word_bytes
        monitor = DigestMonitor(width_bytes=word)
        m.submodules[f"digest_{engine.name.lower()}"] = monitor
        m.d.comb += [
            monitor.taken.eq(trace.taken),
            monitor.address.eq(trace.address * word),
            monitor.data.eq(trace.data),
            monitor.mask.eq(trace.mask),
            monitor.retire.eq(trace.retire),
            monitor.clear.eq(~self.running),
        ]
        return monitor

    def _dram_writes(self, m: Module, accelerator: Accelerator, monitor: DigestMonitor) -> None:
        """Shows the DMA's monitor its DRAM writes; the window starts at address 0."""
        write = accelerator.dram_write
        address = Signal(32)
        with m.If(write.burst.valid & write.burst.ready):
            m.d.sync += address.eq(write.burst.payload.address)
        with m.If(write.data.valid & write.data.ready):
            m.d.sync += address.eq(address + self.config.bus_bytes)
            m.d.comb += [
                monitor.taken.eq(1),
                monitor.address.eq(address),
                monitor.data.eq(write.data.payload),
                monitor.mask.eq((1 << self.config.bus_bytes) - 1),
            ]
