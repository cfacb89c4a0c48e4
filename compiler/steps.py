"""The order of a program: steps, the loads they need, and how loads run ahead of steps.

A *step* is one instruction that computes (a GEMM over a group of rows, a softmax, a norm) or
copies.
A *load* brings a constant to the staging area and, for ring operands, into a ring. Loads of later
steps are emitted between earlier steps as far as rings and staging have room, so that the in-order
DMA never stands between the array and its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError

LOADS_AHEAD_PER_STEP = 2
"""Loads of later steps that are emitted after each step: spreads them over a block's steps."""


@dataclass
class Load:
    """One constant on its way to an engine.

    fetch: emits the DMA into the staging words it is given (None: the data is in local memory).
    consume: emits the instruction that reads it there; with `early` it may run ahead of earlier
    steps (ring operands), else it runs right before its step. held: the staging is read by the step
    itself and freed after it. b_words, p_records: room it takes in a ring until a step releases it.
    """

    fetch: Callable[[int], None] | None
    consume: Callable[[int], None]
    staging_words: int = 0
    early: bool = False
    held: bool = False
    b_words: int = 0
    p_words: int = 0
    address: int = -1


@dataclass
class Step:
    """One computing instruction, with its loads; what it releases; what follows it (a store)."""

    emit: Callable[[], None]
    loads: list[Load] = field(default_factory=list)
    release_b: int = 0
    release_p: int = 0
    store: Callable[[], None] | None = None


class Staging:
    """Circular first-fit allocation of the staging words, in program order."""

    def __init__(self, words: range) -> None:
        self.words = words
        self.position = words.start
        self.taken: dict[int, int] = {}

    def allocate(self, count: int) -> int | None:
        """First word of a free block, searched from where the last one ended; None if there is
        none."""
        for start in (self.position, self.words.start):
            address = self._first_free(start, count)
            if address is not None:
                self.taken[address] = count
                self.position = address + count
                return address
        return None

    def _first_free(self, start: int, count: int) -> int | None:
        address = start
        for low in sorted(self.taken):
            high = low + self.taken[low]
            if high <= address:
                continue
            if address + count <= low:
                break
            address = high
        return address if address + count <= self.words.stop else None

    def free(self, address: int) -> None:
        del self.taken[address]


class Emitter:
    """Emits steps in order, with loads as early as rings and staging allow."""

    def __init__(self, config: AcceleratorConfig, staging: Staging) -> None:
        self.config = config
        self.staging = staging
        self.b_free = config.b_depth
        self.p_free = config.p_depth * 8 // config.word_bytes

    def run(self, steps: list[Step]) -> None:
        """Emits everything. Raises CapacityError when a load cannot find room at its own step."""
        loads = [(index, load) for index, step in enumerate(steps) for load in step.loads]
        fetched = 0
        stores: list[Callable[[], None]] = []
        for index, step in enumerate(steps):
            while fetched < len(loads) and loads[fetched][0] <= index:
                if self._fetch(loads[fetched][1]):
                    fetched += 1
                elif stores:
                    stores.pop()()
                else:
                    self._refuse(loads[fetched][1])
            for load in step.loads:
                if not load.early:
                    load.consume(load.address)
                    self._free(load, held=False)
            step.emit()
            for load in step.loads:
                self._free(load, held=True)
            self.b_free += step.release_b
            self.p_free += step.release_p
            # A store waits for its step; one step later that holds back no load.
            if stores:
                stores.pop()()
            if step.store is not None:
                stores.append(step.store)
            for _ in range(LOADS_AHEAD_PER_STEP):
                if fetched == len(loads) or not self._fetch_ahead(loads[fetched][1]):
                    break
                fetched += 1
        for store in stores:
            store()

    def _fetch(self, load: Load) -> bool:
        """Brings a load to staging (and on to its ring); False when there is no room now."""
        if load.b_words > self.b_free or load.p_words > self.p_free:
            return False
        if load.fetch is not None:
            address = self.staging.allocate(load.staging_words)
            if address is None:
                return False
            load.address = address
            load.fetch(address)
        self.b_free -= load.b_words
        self.p_free -= load.p_words
        if load.early:
            load.consume(load.address)
            self._free(load, held=False)
        return True

    def _fetch_ahead(self, load: Load) -> bool:
        """The same for a later step's load: only constants, and never the last half of staging,
        which the steps in between may need."""
        if load.fetch is None:
            return False
        room = len(self.staging.words) // 2 - sum(self.staging.taken.values())
        return load.staging_words <= room and self._fetch(load)

    def _free(self, load: Load, *, held: bool) -> None:
        if load.fetch is not None and load.held is held and load.address in self.staging.taken:
            self.staging.free(load.address)

    def _refuse(self, load: Load) -> NoReturn:
        if load.b_words > self.b_free:
            raise CapacityError(
                f"a block of B does not fit the ring of config {self.config.name!r}: raise b_depth"
            )
        if load.p_words > self.p_free:
            raise CapacityError(
                f"scale records do not fit the ring of config {self.config.name!r}: raise p_depth"
            )
        raise CapacityError(
            f"a constant of {load.staging_words * self.config.word_bytes} bytes does not fit "
            f"beside the activations of config {self.config.name!r}: raise local_kib"
        )
