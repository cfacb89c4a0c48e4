"""Steps of a program, and the loads and stores around them.

A *step* is one instruction that computes (a GEMM over a group of rows, a softmax, a norm) or
copies. A *load* brings data to staging and, for ring operands, on into a ring. A *store* takes a
step's result from staging to DRAM.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Queue = Literal["b", "p", "kept", "table", "other"]


@dataclass
class Load:
    """Data on its way to an engine.

    fetch: emits the DMA into the staging words it is given (None: the data is in local memory).
    consume: emits the instruction that reads it there; with `early` it may run ahead of earlier
    steps (ring operands), else it runs right before its step. held: its step reads the staging
    itself. slot: several steps do, up to step `until`; then it is the place among the words that
    the operation keeps for that. b_words, p_words: room it takes in a ring until a step releases
    it. after: the last step that writes what it reads, -1 where there is none: a fetch follows
    its store, what reads local memory the step itself. wanted: of an engine's table, the step
    behind which its own step can run, which may come much later in the program. ahead: words that
    it takes from what steps before its own leave free.
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
    wanted: int | None = None
    address: int = -1
    fetched: bool = False
    consumed: bool = False
    ahead: int = 0

    @property
    def comes(self) -> bool:
        """Whether it is brought from DRAM, or at least needs words of staging."""
        return self.fetch is not None or self.slot is not None

    @property
    def passes(self) -> bool:
        """Whether its words of staging are free again once it is consumed."""
        return self.staging_words > 0 and not self.held and self.slot is None

    @property
    def queue(self) -> Queue:
        """Loads of one queue are emitted in the order of their steps: a ring keeps its order."""
        if self.slot is not None:
            return "kept"
        if self.wanted is not None:
            return "table"
        return "b" if self.b_words else "p" if self.p_words else "other"


@dataclass
class Store:
    """A block of staging that a step writes, and how it goes to DRAM from there.

    emit: emits the DMA from the block, whose first word is `address` once its step is emitted.
    over: a held load of the step in whose words the block is written, each after its last read.
    """

    words: int
    emit: Callable[[int], None]
    over: Load | None = None
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
        """Words of blocks that are free again after the step."""
        stored = sum(store.words for store in self.stores if store.over is not None)
        return sum(load.staging_words for load in self.loads if load.held) - stored

    @property
    def passing_words(self) -> int:
        """Words of the largest block that is free again before the step runs."""
        passing = [load.staging_words for load in self.loads if load.passes]
        return max(passing, default=0)
