"""What stands between the sequencer and the engines: its ports, whichever form it has."""

from collections.abc import Mapping
from typing import Any

from amaranth import Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from gateformer.hw.interfaces import InstructionPort
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine

REGIONS = 8
"""Regions of the RAM, of which every engine has one."""
VISITS = REGIONS + 2
"""Cycles in which every queue is looked at once, and what that found is known."""


class QueueWrite(Signature):
    """The write side of the queues, seen from the sequencer.

    With `enable`, `data` goes to word `index` of the next free slot of `engine`; writing the last
    word hands the instruction to the engine. `full`: `engine` of the cycle before has no free slot;
    it has one until an instruction is handed over.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "enable": Out(1),
                "engine": Out(3),
                "index": Out(3),
                "data": Out(32),
                "full": In(1),
            }
        )


class QueueLookup(Signature):
    """How the sequencer learns where an instruction stands, seen from the sequencer.

    While `want`, which stays until a flush, no instruction is loaded any more; `pc` is the byte
    address of the one that `engine` had in hand when `want` came, as soon as `found`.
    """

    def __init__(self) -> None:
        super().__init__({"want": Out(1), "engine": Out(3), "pc": In(24), "found": In(1)})


class QueuePorts(wiring.Component):
    """Members `dma`, `load_a`, ... are the engines' instruction ports; all other outputs go by
    engine number. `more`: ports that only one form has."""

    write: Any
    lookup: Any
    dma: Any
    load_a: Any
    load_b: Any
    load_p: Any
    epilogue: Any
    vector: Any
    array: Any
    waiting: Signal
    active: Signal
    completed: Signal
    pc: Any
    empty: Signal

    def __init__(self, config: AcceleratorConfig, more: Mapping[str, wiring.Member]) -> None:
        self.config = config
        super().__init__(
            {
                "write": In(QueueWrite()),
                "lookup": In(QueueLookup()),
                **{engine.name.lower(): In(InstructionPort(engine)) for engine in Engine},
                **more,
                "waiting": Out(len(Engine)),
                "active": Out(len(Engine)),
                "completed": Out(len(Engine)),
                "pc": Out(24).array(len(Engine)),
                "empty": Out(1),
            }
        )
