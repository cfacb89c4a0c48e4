"""The order of a program: how loads run ahead of steps, and stores follow them.

Loads of later steps are emitted between earlier steps as far as rings and staging have room and the
DMA engine has time, so that, though it works in order, it never stands between the array and its
weights. The cycle model runs along and tells when engines are free.
"""

from collections import deque
from typing import NoReturn

import numpy as np

from gateformer.compiler.cycle_model import CycleModel
from gateformer.compiler.staging import Staging
from gateformer.compiler.steps import Load, Queue, Step, Store
from gateformer.compiler.words import Words
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import Engine, Instruction

PATIENCE = 2000
"""Cycles that the DMA engine may wait for the words of a load that runs ahead."""


class Emitter:
    """Emits steps in order, with loads and stores between them as the cycle model says that the DMA
    engine has time for them."""

    def __init__(
        self,
        config: AcceleratorConfig,
        bounds: list[Words],
        slots: list[int],
        program: list[Instruction],
        *,
        share: float,
        eager: bool,
    ) -> None:
        """bounds: for each operation, the words through which blocks pass while it runs; slots: the
        first word of those that it keeps. program: where steps, loads and stores put their
        instructions. share: how much of the staging that no step needs may hold data of later
        steps; with 0, whatever can run finds room. eager: whether loads run ahead of the work of
        any engine, not only of the array, and pass through the words that the DMA engine waits for
        the least, not through those behind the last ones."""
        self.config = config
        self.bounds = bounds
        self.slots = slots
        self.program = program
        self.share = share
        self.eager = eager
        self.model = CycleModel(config)
        self.operations: list[int] = []
        """For each instruction, the operation that it serves."""
        self.staging = Staging(Words(()), packed=not share)
        self.b_free = config.b_depth
        self.p_free = config.p_depth * 8 // config.word_bytes
        self.pending: deque[tuple[int, int, Store]] = deque()
        """Stores not yet emitted, with their steps and when these are done."""
        self.done = -1
        """The last step that is emitted."""
        self.fetches: dict[Queue, deque[tuple[int, Load]]] = {}
        """Loads from DRAM that are not fetched yet."""
        self.rings: dict[Queue, deque[tuple[int, Load]]] = {}
        """Loads that are not in their ring yet."""
        self.held: dict[int, list[Load]] = {}
        """Held loads in staging, by step."""
        self._shared: dict[tuple[int, int], Words] = {}
        self.entered = -1
        """The current operation."""
        self.kept: list[Load] = []
        """Loads in slots of the current operation."""
        self.claimed: dict[int, list[Load]] = {}
        """Loads that are in slots of later operations already."""
        self.ahead: list[tuple[int, Load]] = []
        """Loads of later steps that are in staging, in the order in which they came."""

    def run(self, steps: list[Step]) -> None:
        """Emits everything. Raises CapacityError when a load cannot find room at its own step."""
        self.steps = steps
        self._measure()
        queues: tuple[Queue, ...] = ("table", "kept", "other", "p", "b")
        self.fetches = {queue: deque() for queue in queues}
        self.rings = {"b": deque(), "p": deque()}
        for index, step in enumerate(steps):
            # What is small and what the first tile needs goes before the rows of B.
            step.loads.sort(key=lambda load: load.b_words > 0)
            for load in step.loads:
                if load.comes:
                    self.fetches[load.queue].append((index, load))
                if load.early:
                    self.rings[load.queue].append((index, load))
        for index, step in enumerate(steps):
            self._enter(step.operation)
            self._load(index, step)
            for store in step.stores:
                store.address = store.over.address if store.over else self._room(store.words)
            step.emit()
            self._note(step.operation)
            self.done = index
            stored = {store.address for store in step.stores}
            for load in self.held.pop(index, []):
                if load.address not in stored:
                    self.staging.free(load.address)
            self.b_free += step.release_b
            self.p_free += step.release_p
            done = self.model.last_end
            self.pending.extend((index, done, store) for store in step.stores)
            self._fill_rings()
            self._ahead(index, done)
            while not self.share and self.pending and self.pending[0][0] < index:
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
        self.room = (self.room * self.share).astype(np.int64)

    def _enter(self, operation: int) -> None:
        """Moves the bounds of staging; what is left outside goes to DRAM before it is
        overwritten."""
        if self.entered == operation:
            return
        self.entered = operation
        bounds = self.bounds[operation]
        while any(
            not bounds.hold(range(store.address, store.address + store.words))
            for _, _, store in self.pending
        ):
            self._store()
        self.staging.bounds = bounds
        self.kept = self.claimed.pop(operation, [])
        for load in self.kept:
            self.staging.free(load.address)

    def _note(self, operation: int) -> None:
        """Puts the instructions that are new down to an operation, and runs them in the model."""
        for instruction in self.program[len(self.operations) :]:
            self.operations.append(operation)
            self.model.issue(instruction)

    def _store(self) -> None:
        step, _, store = self.pending.popleft()
        store.emit(store.address)
        self._note(self.steps[step].operation)
        self.staging.free(store.address)

    def _room(self, words: int) -> int:
        """Staging for a store's block; earlier stores make room where there is none."""
        while True:
            address = self._place(words)
            if address is not None:
                return address
            if self.pending:
                self._store()
            elif not self._give_up_one():
                self._refuse_staging(words)

    def _place(self, words: int, bounds: Words | None = None) -> int | None:
        """Takes a free block of staging; within bounds, for a load that runs ahead, only one that
        the DMA engine need not wait for. None where there is none."""
        places = self.staging.places(words, bounds)
        waits: dict[int, int] = {}
        for place in places if self.eager else places[:1]:
            waits[place] = self.model.wait_for(place, words)
            if not waits[place]:
                break
        if not waits:
            return None
        address = min(waits, key=waits.__getitem__)
        if self.eager and bounds is not None and waits[address] > PATIENCE:
            return None
        self.staging.take(address, words)
        return address

    # ------------------------------------------------------------------- loads of this step

    def _load(self, index: int, step: Step) -> None:
        """Brings everything that a step reads to where it reads it."""
        for load in step.loads:
            if load.comes and not load.fetched:
                self._fetch_now(index, load)
            if load.early:
                if not load.consumed:
                    self._fill_rings()
                if not load.consumed:
                    self._refuse(load)
                continue
            load.consume(load.address)
            self._note(step.operation)
            if load.passes:
                self.staging.free(load.address)

    def _fetch_now(self, index: int, load: Load) -> None:
        """Fetches a load at its own step, if it has not run ahead."""
        while self._blocked(load) or not self._fetch(index, load):
            if self.pending:
                self._store()
            elif not self._give_up_one():
                self._refuse(load)
        self.fetches[load.queue].popleft()

    def _give_up_one(self) -> bool:
        """Frees the words of the load that ran ahead the farthest; it comes again later. False
        where there is none."""
        self.ahead = [
            (step, load)
            for step, load in self.ahead
            if step > self.done + 1 and load.fetched and not load.consumed
        ]
        if not self.ahead:
            return False
        step, load = max(reversed(self.ahead), key=lambda entry: entry[0])
        self.ahead = [entry for entry in self.ahead if entry[1] is not load]
        load.fetched = False
        self.staging.free(load.address)
        if load.held:
            self.held[step] = [other for other in self.held[step] if other is not load]
        self.room[self.done + 1 : step] += load.ahead
        load.ahead = 0
        self.fetches[load.queue].appendleft((step, load))
        return True

    def _blocked(self, load: Load) -> bool:
        """Whether a store that the load must follow is not yet emitted."""
        first = self.pending[0][0] if self.pending else self.done + 1
        return load.after >= first

    def _fetch(self, index: int, load: Load, bounds: Words | None = None) -> bool:
        """Brings a load from DRAM to its place or to staging; False when there is no room now."""
        if load.slot is not None:
            if not self._keep(index, load, load.slot):
                return False
        elif load.staging_words:
            address = self._place(load.staging_words, bounds)
            if address is None:
                return False
            load.address = address
        self._bring_in(index, load)
        if load.held:
            self.held.setdefault(index, []).append(load)
        self._fill_rings()
        return True

    def _bring_in(self, index: int, load: Load) -> None:
        if load.fetch is not None:
            load.fetch(load.address)
            self._note(self.steps[index].operation)
        load.fetched = True

    def _fill_rings(self) -> None:
        """Brings what is fetched, or lies in local memory, on into the rings, as far as they have
        room; of steps to come only what was fetched."""
        for queue in self.rings.values():
            while queue:
                index, load = queue[0]
                there = load.fetched if load.comes else load.after <= self.done
                if not there or load.b_words > self.b_free or load.p_words > self.p_free:
                    break
                queue.popleft()
                load.consume(load.address)
                load.consumed = True
                self._note(self.steps[index].operation)
                self.b_free -= load.b_words
                self.p_free -= load.p_words
                if load.passes:
                    self.staging.free(load.address)
                    self.room[self.done + 1 : index] += load.ahead
                    load.ahead = 0

    def _keep(self, index: int, load: Load, slot: int) -> bool:
        """Gives a load its slot, if nothing there is needed any more."""
        address = self.slots[self.steps[index].operation] + slot
        end = address + load.staging_words
        for other in self.kept:
            overlaps = other.address < end and address < other.address + other.staging_words
            if overlaps and other.until > self.done:
                return False
        self.kept = [other for other in self.kept if other.until > self.done]
        self.kept.append(load)
        load.address = address
        return True

    # ----------------------------------------------------------------- loads of later steps

    def _ahead(self, index: int, done: int) -> None:
        """Emits what the DMA engine can begin before the array is through with this step: stores
        that are done, else loads of later steps."""
        end = max(self.model.array_end, done if self.eager else 0)
        while self.model.free[Engine.DMA] < end:
            if self.pending and self._store_is_due(index):
                self._store()
            elif not self._load_ahead(index):
                if not self.pending or self.pending[0][1] > end:
                    return
                self._store()

    def _store_is_due(self, index: int) -> bool:
        """Whether a store need not wait, and no load for the next step is missing."""
        urgent = any(
            queue and queue[0][0] <= index + 1 and not self._blocked(queue[0][1])
            for queue in self.fetches.values()
        )
        return self.pending[0][1] <= self.model.free[Engine.DMA] and not urgent

    def _load_ahead(self, index: int) -> bool:
        """Fetches one load of a later step, of those that can be the one needed first."""
        heads = sorted((_wanted(*queue[0]), name) for name, queue in self.fetches.items() if queue)
        for _, name in heads:
            if self._fetch_ahead(*self.fetches[name][0], index):
                self.fetches[name].popleft()
                return True
        return False

    def _fetch_ahead(self, step: int, load: Load, index: int) -> bool:
        """Fetches a later step's load, but never into words that the steps in between need."""
        if self._blocked(load):
            return False
        if load.slot is not None and self.steps[step].operation == self.steps[index].operation:
            return self._fetch(step, load)
        if not load.staging_words:
            return self._fetch(step, load)
        between = self.room[index + 1 : step]
        passes = (
            load.early
            and self.rings[load.queue][0][1] is load
            and load.b_words <= self.b_free
            and load.p_words <= self.p_free
        )
        """Whether its words are free again at once."""
        if not passes and (between < load.staging_words).any():
            return False
        last = step if load.slot is not None else step + 1
        bounds = self._common(self.steps[index].operation, self.steps[last - 1].operation)
        if load.slot is not None:
            return self._claim(index, step, load, bounds)
        if passes:
            bounds = self.staging.bounds
        else:
            between -= load.staging_words
            load.ahead = load.staging_words
        if self._fetch(step, load, bounds):
            if not load.consumed:
                self.ahead.append((step, load))
            return True
        between += load.ahead
        load.ahead = 0
        return False

    def _common(self, first: int, last: int) -> Words:
        """The words of staging that all operations from the first to the last have."""
        known = last
        while known > first and (first, known) not in self._shared:
            known -= 1
        words = self._shared.get((first, known), self.bounds[first])
        for operation in range(known + 1, last + 1):
            words = words & self.bounds[operation]
            self._shared[first, operation] = words
        return words

    def _claim(self, index: int, step: int, load: Load, bounds: Words) -> bool:
        """Fetches a load into the slot of an operation to come, if nobody uses its words until
        then."""
        assert load.slot is not None
        operation = self.steps[step].operation
        address = self.slots[operation] + load.slot
        place = range(address, address + load.staging_words)
        if not self._common(self.steps[index].operation, operation - 1).hold(place):
            return False
        if not self.staging.claim(place.start, len(place)):
            return False
        self.room[index + 1 : step] -= len(place)
        load.address = address
        self.claimed.setdefault(operation, []).append(load)
        self._bring_in(step, load)
        return True

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


def _wanted(step: int, load: Load) -> int:
    """The step in front of which a load of a step should be there."""
    return step if load.wanted is None else load.wanted + 1
