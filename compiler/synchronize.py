"""Derives the semaphore masks of a program from the words that its instructions touch.

Every hazard (read after write, write after read, write after write) between two engines must be
ordered by a token unless an earlier token already implies it; that is tracked with one vector clock
for each engine (Fidge 1988, Mattern 1989). Within an engine, instructions complete in order.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from gateformer.compiler.accesses import Access, Block, accesses
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import (
    SEMAPHORE_MAX,
    SYNC_ENGINES,
    Engine,
    Instruction,
    Opcode,
    semaphore_exists,
)

_COUNT = len(SYNC_ENGINES)
_PRODUCERS = [
    [int(p) for p in SYNC_ENGINES if semaphore_exists(p, consumer)] for consumer in SYNC_ENGINES
]
"""For each engine, those that can give it tokens."""


@dataclass
class _Engine:
    """What is known of one engine while the program is walked."""

    steps: list[int] = field(default_factory=list)
    """Program position of each of its instructions."""
    known: list[int] = field(default_factory=lambda: [-1] * _COUNT)
    """Last step of every engine that is complete before this engine's next step."""
    at: list[list[int]] = field(default_factory=list)
    """`known` as it was when each step started."""


class _Synchronizer:
    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.engines = [_Engine() for _ in SYNC_ENGINES]
        shape = (_COUNT, config.local_words)
        self.last_read = np.full(shape, -1, np.int32)
        self.last_write = np.full(shape, -1, np.int32)
        self.tokens: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """For each (producer, consumer): (producer step, consumer's program position)."""
        self.waits: dict[tuple[int, int], int] = {}
        self.signals: dict[tuple[int, int], int] = {}

    def visit(self, position: int, access: Access) -> None:
        """Orders one engine's part of the instruction at `position` after all it depends on."""
        consumer = int(access.engine)
        state = self.engines[consumer]
        latest = np.full(_COUNT, -1)
        for block in (*access.reads, *access.writes):
            np.maximum(latest, _latest(self.last_write, block), out=latest)
        for block in access.writes:
            np.maximum(latest, _latest(self.last_read, block), out=latest)
        for producer in _PRODUCERS[consumer]:
            if latest[producer] > state.known[producer]:
                self._order(producer, int(latest[producer]), consumer, position)
        step = len(state.steps)
        state.steps.append(position)
        state.at.append(list(state.known))
        for block in access.reads:
            _rows(self.last_read[consumer], block)[...] = step
        for block in access.writes:
            _rows(self.last_write[consumer], block)[...] = step

    def _order(self, producer: int, step: int, consumer: int, position: int) -> None:
        """Adds a token so that `producer`'s step is complete before the consumer goes on."""
        tokens = self.tokens.setdefault((producer, consumer), [])
        steps = self.engines[producer].steps
        pending = 0
        while pending < len(tokens) and tokens[-1 - pending][1] > steps[step]:
            pending += 1
        if pending >= SEMAPHORE_MAX - 1:
            # A later step holds the consumer back longer, but fewer tokens wait beside its own: the
            # first one behind which there are few enough, or else the last so far, which stands for
            # every step before it, so that no further token is needed until the producer goes on.
            full = tokens[-(SEMAPHORE_MAX - 1)][1]
            step = min(bisect_right(steps, full), len(steps) - 1)
        tokens.append((step, position))
        self.signals[(producer, step)] = self.signals.get((producer, step), 0) | 1 << consumer
        self.waits[(consumer, position)] = self.waits.get((consumer, position), 0) | 1 << producer
        known = self.engines[consumer].known
        at = self.engines[producer].at[step]
        for engine in range(_COUNT):
            if engine != consumer:
                known[engine] = max(known[engine], at[engine])
        known[producer] = max(known[producer], step)


def _rows(words: np.ndarray, block: Block) -> np.ndarray:
    """The words of a block, of an array whose last axis is addresses: [..., rows, words]."""
    if block.rows == 1:
        return words[..., None, block.address : block.address + block.words]
    end = block.address + (block.rows - 1) * block.stride + block.words
    step = words.strides[-1]
    return np.lib.stride_tricks.as_strided(
        words[..., block.address : end],
        (*words.shape[:-1], block.rows, block.words),
        (*words.strides[:-1], block.stride * step, step),
    )


def _latest(steps: np.ndarray, block: Block) -> np.ndarray:
    """The last step of each engine that touched a block: [engines]."""
    return _rows(steps, block).max(axis=(-2, -1))


def synchronize(config: AcceleratorConfig, program: list[Instruction]) -> list[Instruction]:
    """The program with every wait and signal mask filled in.

    In program order, at no point are more than SEMAPHORE_MAX tokens of one pair given and not yet
    taken; with signals that wait at a full counter this excludes deadlock: the first unfinished
    instruction in program order can always go on.
    """
    walker = _Synchronizer(config)
    parts: list[tuple[Access, ...]] = []
    for position, instruction in enumerate(program):
        part = accesses(config, instruction)
        parts.append(part)
        for access in part:
            walker.visit(position, access)
    result = []
    steps = [0] * _COUNT
    for position, (instruction, part) in enumerate(zip(program, parts, strict=True)):
        values = dict(instruction.values)
        for access in part:
            engine = int(access.engine)
            second = instruction.opcode is Opcode.GEMM and access.engine is Engine.EPILOGUE
            prefix = "epilogue_" if second else ""
            values[f"{prefix}wait"] = walker.waits.get((engine, position), 0)
            values[f"{prefix}signal"] = walker.signals.get((engine, steps[engine]), 0)
            steps[engine] += 1
        result.append(Instruction(instruction.opcode, values))
    return result
