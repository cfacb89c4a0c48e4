"""The control path, from DRAM to the engines: fetch, sequencer, queues and semaphores."""

import json
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.fetch import Fetch
from gateformer.hw.instruction_queue import InstructionQueues
from gateformer.hw.interfaces import DramRead, InstructionPort
from gateformer.hw.runtime_lengths import RuntimeLengths
from gateformer.hw.semaphores import Semaphores
from gateformer.hw.sequencer import Sequencer
from gateformer.sim.bench import run_bench
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import SMALL, TINY
from gateformer.spec.isa import SAMPLE_BITS, SYNC_ENGINES, Engine

BENCH = str(Path(__file__).with_name("bench_sequencer.py"))
HOST = {"start": In(1), "stop": In(1)}
LENGTHS = {"write": In(1), "sample": In(SAMPLE_BITS), "length": In(12)}
HOST |= {"program": In(32), "window_base": In(32), "window_size": In(32)}
ERRORS = {"local_error": In(1), "local_engine": In(3), "dma_error": In(1), "dma_quiet": In(1)}
STATUS = {"running": Out(1), "done": Out(1), "error": Out(1), "code": Out(4)}
STATUS |= {"engine": Out(3), "error_pc": Out(24), "abort": Out(1), "flush": Out(1)}


class ControlPath(wiring.Component):
    """Fetch, sequencer, runtime lengths, queues and semaphores, joined as in the accelerator."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        ports: dict[str, Any] = {e.name.lower(): In(InstructionPort(e)) for e in Engine}
        super().__init__(
            {
                **HOST,
                **LENGTHS,
                **ERRORS,
                **STATUS,
                **ports,
                "progress": In(1),
                "dram_read": Out(DramRead(config)),
                "pc": Out(24).array(len(Engine)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sequencer, fetch = Sequencer(self.config), Fetch(self.config)
        queues, semaphores = InstructionQueues(self.config), Semaphores()
        m.submodules.sequencer, m.submodules.fetch = sequencer, fetch
        reset = ResetInserter(sequencer.flush)
        m.submodules.queues, m.submodules.semaphores = reset(queues), reset(semaphores)
        for e in Engine:
            name = e.name.lower()
            wiring.connect(m, getattr(queues, name), wiring.flipped(getattr(self, name)))
            m.d.comb += self.pc[e].eq(queues.pc[e])
        for e in SYNC_ENGINES:
            wiring.connect(m, queues.semaphores[e], semaphores.ports[e])
        wiring.connect(m, fetch.words, sequencer.words)
        wiring.connect(m, sequencer.queue, queues.write)
        wiring.connect(m, sequencer.lookup, queues.lookup)
        wiring.connect(m, fetch.dram_read, wiring.flipped(self.dram_read))
        m.submodules.lengths = lengths = RuntimeLengths(self.config)
        for name in LENGTHS:
            m.d.comb += getattr(lengths, name).eq(getattr(self, name))
        m.d.comb += [
            lengths.select.eq(sequencer.sample),
            sequencer.length.eq(lengths.current),
        ]
        for name in ("start", "stop", "local_error", "local_engine", "dma_error"):
            m.d.comb += getattr(sequencer, name).eq(getattr(self, name))
        for name in STATUS:
            m.d.comb += getattr(self, name).eq(getattr(sequencer, name))
        m.d.comb += sequencer.empty.eq(queues.empty & semaphores.idle)
        for name in ("waiting", "active"):
            m.d.comb += getattr(sequencer, name).eq(getattr(queues, name))
        for name in ("program", "window_base", "window_size"):
            m.d.comb += getattr(fetch, name).eq(getattr(self, name))
        m.d.comb += [
            sequencer.progress.eq(self.progress | queues.completed.any()),
            sequencer.missing.eq(fetch.missing),
            sequencer.quiet.eq(fetch.quiet & self.dma_quiet),
            fetch.restart.eq(sequencer.restart),
            fetch.abort.eq(sequencer.abort),
        ]
        return m


@pytest.mark.parametrize(
    "config",
    [
        TINY.replace(
            queue_depth=4,
            watchdog_cycles=3000,
            gelu="polynomial",
            multipliers="dsp",
            dram="readonly",
            family="generic",
        ),
        SMALL.replace(queue_depth=8, watchdog_cycles=3000, bus_bytes=8, family="generic"),
    ],
    ids=["tiny", "small"],
)
def test_sequencer(config: AcceleratorConfig, tmp_path: Path) -> None:
    run_bench(
        ControlPath(config),
        BENCH,
        tmp_path / "b",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )
