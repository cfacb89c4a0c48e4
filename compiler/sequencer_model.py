"""The sequencer in time: how the program comes from memory and goes to the engines' queues."""

from collections import deque
from collections.abc import Sequence

from gateformer.compiler import timing as t
from gateformer.compiler.dram_bus import DramBus
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.isa import Engine

_HERE = 1 << 62
"""The address of a program in external memory, in no row that data lies in."""


class SequencerModel:
    """Fetches instructions ahead in bursts, and hands one after another on.

    program: the engines of every instruction; None where these are not known yet.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        bus: DramBus,
        program: Sequence[tuple[Engine, ...]] | None = None,
    ) -> None:
        self.config = config
        self.bus = bus
        self._places = None if program is None else _full_queue(config, program)
        self.free = t.FETCH_START
        """When the last instruction so far was handed on."""
        self._index = 0
        self._wanted = 0
        """Instructions that were asked for."""
        self._arrivals: deque[int] = deque()
        """When each of those that are not handed on yet begins to arrive."""
        self._idle = t.FETCH_START
        """When the last burst of the fetch has arrived."""
        self._taken: deque[int] = deque(maxlen=t.FETCH_INSTRUCTIONS + 1)
        """When the last instructions were taken from the fetch."""
        self._depth = config.queue_depth - t.QUEUE_HELD
        self.sent = dict.fromkeys(Engine, 0)
        """Instructions that were handed on to each engine."""
        self.left: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        """When each of an engine's instructions left its queue."""

    def dispatch(self, engines: tuple[Engine, ...]) -> dict[Engine, int]:
        """When the next instruction comes to its engines."""
        start = self.free
        if self.config.dram != "none":
            while not self._arrivals:
                self._burst(self._asks())
            start = max(start, self._arrivals.popleft())
        for engine in engines:
            if (out := self.must_leave(engine)) > 0:
                start = max(start, self.left[engine][out - 1])
            self.sent[engine] += 1
        self.free = start + t.dispatch_cycles(self.config, len(engines))
        self._taken.append(self.free)
        self._index += 1
        loaded = self.free + t.LOAD_INSTRUCTION
        return {engine: loaded + i * t.LOAD_FURTHER for i, engine in enumerate(engines)}

    def must_leave(self, engine: Engine) -> int:
        """How many instructions of an engine must have left its queue before the next one."""
        return self.sent[engine] + 1 - self._depth

    def beside(self, time: int) -> None:
        """Lets the bursts have the bus that are asked for before a burst of data at a time."""
        if self.config.dram == "none":
            return
        most = self._index + 2 * self.config.queue_depth
        if self._places is not None:
            most = self._places[self._index - 1]
        while self._wanted < most and (ask := self._asks()) <= max(time, self.bus.accepts):
            self._burst(ask)

    def _asks(self) -> int:
        """When the next burst is asked for: when half of what was fetched is handed on."""
        handed = self._wanted - t.FETCH_INSTRUCTIONS - self._index
        if handed > 0:
            # Instructions that are not known yet, at one engine each.
            room = self.free + handed * t.dispatch_cycles(self.config, 1)
        else:
            room = self._taken[handed - 1] if -handed < len(self._taken) else 0
        return max(self._idle, room) + t.FETCH_LATENCY

    def _burst(self, time: int) -> None:
        size = INSTRUCTION_BYTES // self.config.bus_bytes
        count = t.FETCH_INSTRUCTIONS
        address = _HERE + self._wanted * INSTRUCTION_BYTES
        end = self.bus.read(time, address, count * size) + self.bus.timing.latency
        first = end - count * size + t.FETCH_WORD
        self._arrivals.extend(first + i * size for i in range(count))
        self._idle = end
        self._wanted += count


def _full_queue(config: AcceleratorConfig, program: Sequence[tuple[Engine, ...]]) -> list[int]:
    """For each instruction, how many may be asked for while the DMA engine is at it or at the last
    one of its own before it: its queue takes no more."""
    mine = [index for index, engines in enumerate(program) if Engine.DMA in engines]
    most, result, passed = config.queue_depth - t.QUEUE_HELD + 1, [], 0
    for index in range(len(program)):
        passed += passed < len(mine) and mine[passed] == index
        last = mine[passed + most - 1] if passed + most <= len(mine) else len(program) - 1
        result.append(last + t.FETCH_INSTRUCTIONS)
    return result
