"""The order of a program: steps, the loads they need, and how loads run ahead of steps.

A *step* is one instruction that computes (a GEMM over a group of rows, a softmax, a norm) or
copies.
A *load* brings data to staging and, for ring operands, on into a ring. Loads of later steps are
emitted between earlier steps as far as rings and staging have room, so that the in-order DMA never
stands between the array and its weights. A *store* takes a step's result from staging to DRAM.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import numpy as np

from gateformer.compiler.staging import Staging
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import Instruction

LOADS_AHEAD_PER_STEP = 2
"""Loads of later steps that are emitted after each step, at least: a few, so that no store waits
behind a block's weights; more where the steps up to the block are fewer than its loads."""

STEPS_AHEAD = 3
"""How many steps ahead data comes that stays in staging until its step: enough for the DMA's
latency, and few enough to leave staging in large pieces."""

STORES_BEHIND = 6
"""After how many steps a store is emitted that nothing wants earlier: the DMA works in order, so a
store whose step is not done would hold back the loads behind it."""

Queue = Literal["b", "p", "kept", "other"]


@dataclass
class Load:
    """Data on its way to an engine.

    fetch: emits the DMA into the staging words it is given (None: the data is in local memory).
    consume: emits the instruction that reads it there; with `early` it may run ahead of earlier
    steps (ring operands), else it runs right before its step. held: its step reads the staging
    itself. slot: several steps do, up to step `until`; then it is the place among the words that
    the operation keeps for that. b_words, p_words: room it takes in a ring until a step releases
    it. after: the last step whose store it must follow, -1 where there is none.
    """

    fetch: Callable[[int], None] | None
    consume: Callable[[int], None]
    staging_words: int = 0
    early: bool = False
    held: bool = False
    slot: int | None = None
    until: int = -1
    b_words: int = 0
    p_words: int = 0
    after: int = -1
    address: int = -1
    fetched: bool = False

    @property
    def queue(self) -> Queue:
        """Loads of one queue are emitted in the order of their steps: a ring keeps its order."""
        if self.slot is not None:
            return "kept"
        return "b" if self.b_words else "p" if self.p_words else "other"


@dataclass
class Store:
    """A block of staging that a step writes, and how it goes to DRAM from there.

    emit: emits the DMA from the block, whose first word is `address` once its step is emitted.
    """

    words: int
    emit: Callable[[int], None]
    address: int = -1


@dataclass
class Step:
    """One computing instruction, with its loads; what it releases; the stores that follow it.

    operation: index of the operation, which says what staging there is.
    """

    operation: int
    emit: Callable[[], None] = lambda: None
    loads: list[Load] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    release_b: int = 0
    release_p: int = 0

    @property
    def stored_words(self) -> int:
        return sum(store.words for store in self.stores)

    @property
    def held_words(self) -> int:
        return sum(load.staging_words for load in self.loads if load.held)

    @property
    def passing_words(self) -> int:
        """Words of the largest block that is free again before the step runs."""
        passing = [load.staging_words for load in self.loads if not load.held and load.slot is None]
        return max(passing, default=0)


class Emitter:
    """Emits steps in order, with loads as early as rings and staging allow."""

    def __init__(
        self,
        config: AcceleratorConfig,
        bounds: list[range],
        top: int,
        program: list[Instruction],
        *,
        ahead: bool,
    ) -> None:
        """bounds: for each operation, the words through which blocks pass while it runs; between
        these and `top` lie those that it keeps. program: where steps, loads and stores put their
        instructions. ahead: whether loads that stay in staging until
        their step may run ahead, too; without, whatever can run finds room."""
        self.config = config
        self.bounds = bounds
        self.top = top
        self.program = program
        self.operations: list[int] = []
        """For each instruction, the operation that it serves."""
        self.ahead = ahead
        self.behind = STORES_BEHIND if ahead else 1
        everything = range(min((b.start for b in bounds), default=0), top)
        self.staging = Staging(everything, circular=ahead)
        self.b_free = config.b_depth
        self.p_free = config.p_depth * 8 // config.word_bytes
        self.pending: deque[tuple[int, Store]] = deque()
        """Stores not yet emitted, with their steps."""
        self.done = -1
        """The last step that is emitted."""
        self.queues: dict[Queue, deque[tuple[int, Load]]] = {}
        self.held: dict[int, list[Load]] = {}
        """Held loads in staging, by step."""
        self.kept: list[Load] = []
        """Loads in slots of the current operation."""

    def run(self, steps: list[Step]) -> None:
        """Emits everything. Raises CapacityError when a load cannot find room at its own step."""
        self.steps = steps
        self._measure()
        self.queues = {"b": deque(), "p": deque(), "kept": deque(), "other": deque()}
        for index, step in enumerate(steps):
            for load in step.loads:
                self.queues[load.queue].append((index, load))
        for index, step in enumerate(steps):
            self._enter(step.operation)
            for load in step.loads:
                self._fetch_now(index, load)
            for load in step.loads:
                if not load.early:
                    load.consume(load.address)
                    self._note(step.operation)
                    if not load.held and load.slot is None:
                        self._free(load)
            for store in step.stores:
                store.address = self._room(store.words)
            step.emit()
            self._note(step.operation)
            self.done = index
            for load in self.held.pop(index, []):
                self._free(load)
            self.b_free += step.release_b
            self.p_free += step.release_p
            self.pending.extend((index, store) for store in step.stores)
            self._ahead(index)
            while self.pending and self.pending[0][0] <= index - self.behind:
                self._store()
        while self.pending:
            self._store()

    def _measure(self) -> None:
        """Finds how many words of staging each step leaves to loads of later steps."""
        self.room = np.array([len(self.bounds[step.operation]) for step in self.steps], np.int64)
        for index, step in enumerate(self.steps):
            # The stores of a step still wait while the next one runs.
            self.room[index : index + 2] -= step.stored_words
            self.room[index] -= step.held_words + step.passing_words

    def _enter(self, operation: int) -> None:
        """Moves the bounds of staging; what is left outside goes to DRAM before it is
        overwritten."""
        bounds = self.bounds[operation]
        if self.staging.bounds == bounds:
            return
        while any(
            store.address < bounds.start or store.address + store.words > bounds.stop
            for _, store in self.pending
        ):
            self._store()
        self.staging.bounds = bounds
        self.kept = []

    def _note(self, operation: int) -> None:
        """Puts the instructions that are new down to an operation."""
        self.operations += [operation] * (len(self.program) - len(self.operations))

    def _store(self) -> None:
        step, store = self.pending.popleft()
        store.emit(store.address)
        self._note(self.steps[step].operation)
        self.staging.free(store.address)

    def _room(self, words: int) -> int:
        """Staging for a store's block; earlier stores make room where there is none."""
        while True:
            address = self.staging.allocate(words)
            if address is not None:
                return address
            if not self.pending:
                self._refuse_staging(words)
            self._store()

    def _fetch_now(self, index: int, load: Load) -> None:
        """Fetches a load at its own step, if it has not run ahead."""
        while not load.fetched:
            if self._blocked(load) or not self._fetch(index, load):
                if not self.pending:
                    self._refuse(load)
                self._store()
        if self.queues[load.queue] and self.queues[load.queue][0][1] is load:
            self.queues[load.queue].popleft()

    def _blocked(self, load: Load) -> bool:
        """Whether a store that the load must follow is not yet emitted."""
        first = self.pending[0][0] if self.pending else self.done + 1
        return load.after >= first

    def _fetch(self, index: int, load: Load, bounds: range | None = None) -> bool:
        """Brings a load to staging (and on to its ring); False when there is no room now."""
        if load.b_words > self.b_free or load.p_words > self.p_free:
            return False
        if load.slot is not None:
            if not self._keep(index, load, load.slot):
                return False
        elif load.fetch is not None:
            address = self.staging.allocate(load.staging_words, bounds)
            if address is None:
                return False
            load.address = address
        if load.fetch is not None:
            load.fetch(load.address)
        self.b_free -= load.b_words
        self.p_free -= load.p_words
        load.fetched = True
        if load.early:
            load.consume(load.address)
            self._free(load)
        elif load.held:
            self.held.setdefault(index, []).append(load)
        self._note(self.steps[index].operation)
        return True

    def _keep(self, index: int, load: Load, slot: int) -> bool:
        """Gives a load its slot, if nothing there is needed any more."""
        address = self.bounds[self.steps[index].operation].stop + slot
        end = address + load.staging_words
        for other in self.kept:
            overlaps = other.address < end and address < other.address + other.staging_words
            if overlaps and other.until > self.done:
                return False
        self.kept = [other for other in self.kept if other.until > self.done]
        self.kept.append(load)
        load.address = address
        return True

    def _ahead(self, index: int) -> None:
        """Fetches loads of later steps, spread over the steps that are left until then."""
        budget = LOADS_AHEAD_PER_STEP
        fetched = 0
        while fetched < budget:
            heads = sorted((queue[0][0], name) for name, queue in self.queues.items() if queue)
            for step, name in heads:
                if self._fetch_ahead(step, self.queues[name][0][1], index):
                    self.queues[name].popleft()
                    budget = max(budget, self._pace(name, step, index))
                    break
            else:
                return
            fetched += 1

    def _pace(self, name: Queue, step: int, index: int) -> int:
        """Loads of the queue's next step that fall to each step until then."""
        count = 1
        for other, _ in self.queues[name]:
            if other > step:
                break
            count += 1
        return -(-count // (step - index))

    def _fetch_ahead(self, step: int, load: Load, index: int) -> bool:
        """The same for a later step's load: data from DRAM only, and never into the words that the
        steps in between need."""
        if load.fetch is None or self._blocked(load):
            return False
        if load.early:
            return self._fetch(step, load)
        if load.slot is not None:
            same = self.steps[step].operation == self.steps[index].operation
            return same and self._fetch(step, load)
        if not self.ahead or step > index + STEPS_AHEAD:
            return False
        between = self.room[index + 1 : step]
        if (between < load.staging_words).any():
            return False
        ranges = [self.bounds[other.operation] for other in self.steps[index : step + 1]]
        bounds = range(max(r.start for r in ranges), min(r.stop for r in ranges))
        if not self._fetch(step, load, bounds):
            return False
        between -= load.staging_words
        return True

    def _free(self, load: Load) -> None:
        if load.fetch is not None and load.slot is None:
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
        self._refuse_staging(load.staging_words)

    def _refuse_staging(self, words: int) -> NoReturn:
        raise CapacityError(
            f"a block of {words * self.config.word_bytes} bytes does not fit beside the "
            f"activations of config {self.config.name!r}: raise local_kib"
        )
