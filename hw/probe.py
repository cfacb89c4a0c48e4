"""What an accelerator shows of its engines' doings, for profiles in simulation."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from gateformer.spec.isa import Engine


class Probe(wiring.Signature):
    """One bit for each engine (bit i is Engine i), telling of one cycle.

    `waiting`: it holds an instruction that awaits its semaphores. `active`: it works on an
    instruction. `completed`: that instruction completes. While active: `operand`, it lacks an
    operand or room in the ring that it fills; `memory`, local memory's port is with another engine;
    `dram`, external memory moves nothing for it; `drain`, its results have nowhere to go. `step`:
    the array takes a step.
    """

    def __init__(self) -> None:
        members: dict[str, Any] = {name: Out(len(Engine)) for name in PER_ENGINE}
        super().__init__({**members, "step": Out(1)})


PER_ENGINE = ("waiting", "active", "completed", "operand", "memory", "dram", "drain")


def connect_probe(m: Module, probe: Any, queues: Any, memory: Any, array: Any, dma: Any) -> None:
    """Drives a probe from the engines' ports. dma: None where there is no external memory."""
    m.d.comb += [
        probe.waiting.eq(queues.waiting),
        probe.active.eq(queues.active),
        probe.completed.eq(queues.completed),
        probe.step.eq(array.busy),
        probe.operand[Engine.ARRAY].eq(array.wait_a | array.wait_b),
        probe.operand[Engine.EPILOGUE].eq(~array.tiles.tile_valid),
        probe.drain[Engine.ARRAY].eq(array.wait_drain),
    ]
    for engine in (Engine.LOAD_A, Engine.LOAD_B, Engine.LOAD_P):
        port = getattr(memory, f"read_{engine.name.lower()}")
        m.d.comb += probe.operand[engine].eq(~port.request.valid & ~port.response_valid)
    for engine in Engine:
        for kind in ("read", "write"):
            port = getattr(memory, f"{kind}_{engine.name.lower()}", None)
            if port is not None:
                with m.If(port.request.valid & ~port.request.ready):
                    m.d.comb += probe.memory[engine].eq(1)
    if dma is not None:
        moves = dma.dram_read.data.valid & dma.dram_read.data.ready
        if dma.config.dram == "readwrite":
            moves |= dma.dram_write.data.valid & dma.dram_write.data.ready
        m.d.comb += probe.dram[Engine.DMA].eq(~moves)
