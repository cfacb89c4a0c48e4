"""The tile loop of the array: walks the groups of A and the tiles of B, one step a cycle."""

from typing import Any

from amaranth import Const, Module, Mux, Shape, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.countdown import CountDown
from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import InstructionPort
from gateformer.hw.primitives.adder import mux_add, wrapped
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class ArrayControl(Component):
    """Issues the steps of GEMM instructions to the rings and the array.

    For each group of A, for each tile of the B block, for each step: the rings are read
    at `a_position`, `b_position` and `step`; `valid` marks a step of a real tile, `last`
    its last one. Last steps are at least `cols` cycles apart, so a tile takes max(steps, cols, 3)
    cycles. The next one follows without an idle cycle, that of the next instruction too, unless
    the tile before it takes less than four cycles: then it starts up to three cycles later.

    A tile starts when its group and its tile of B are loaded (`a_loaded` and `b_loaded` count
    them) and the accumulator buffer has a free slot (`slot_released` gives one back). In the last
    tile of a group each word of A read is freed (`a_release`), in the last group of an instruction
    with release_b each word of B (`b_release`), both in the cycle of the word's last read of bank
    0. Where there is nothing to compute but operands to free (m or n is 0), the same loop runs
    without `valid` and without a slot.

    An instruction is complete when its last tile has started.

    `wait_a`, `wait_b`, `wait_drain`: no tile runs, and the next one wants a group of A, a tile of
    B, or (with both there) a slot.
    """

    instructions: Any
    a_loaded: Signal
    b_loaded: Signal
    slot_released: Signal
    a_position: Signal
    a_release: Signal
    b_position: Signal
    b_release: Signal
    step: Signal
    valid: Signal
    last: Signal
    wait_a: Signal
    wait_b: Signal
    wait_drain: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.ARRAY)),
                "a_loaded": In(1),
                "b_loaded": In(1),
                "slot_released": In(1),
                "a_position": Out(range(config.a_depth)),
                "a_release": Out(1),
                "b_position": Out(range(config.b_depth)),
                "b_release": Out(1),
                "step": Out(range(config.word_bytes // config.lanes)),
                "valid": Out(1),
                "last": Out(1),
                "wait_a": Out(1),
                "wait_b": Out(1),
                "wait_drain": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        stream = self.instructions.stream
        p = stream.payload

        m.submodules.groups = groups = Credits(config.a_depth)
        m.submodules.tiles = tiles = Credits(config.b_depth)
        m.submodules.slots = slots = Credits(
            config.accumulator_tiles, init=config.accumulator_tiles
        )
        m.d.comb += [
            groups.give.eq(self.a_loaded),
            tiles.give.eq(self.b_loaded),
            slots.give.eq(self.slot_released),
        ]

        # The loop over tiles: describes the next tile while one runs.
        looping = Signal()
        has_a = Signal(reset_less=True)
        has_b = Signal(reset_less=True)
        first_tile = Signal(reset_less=True)
        # Only the first pass over a block waits for its tiles: later ones find them all.
        first_pass = Signal(init=1)
        loading = Signal()
        start = Signal()
        last_tile = Signal()
        columns = CountDown(
            m,
            config,
            total=p.n,
            step=config.cols,
            load=loading | last_tile,
            advance=loading | start,
            name="columns",
        )
        rows = CountDown(
            m,
            config,
            total=p.m,
            step=config.rows,
            load=loading,
            advance=loading | (start & last_tile),
            name="rows",
        )
        last_group = rows.last
        m.d.comb += last_tile.eq(columns.last)
        real = has_a & has_b
        needs_group = has_a & first_tile
        needs_tile = has_b & first_pass
        frees_a = has_a & last_tile
        frees_b = has_b & p.release_b & last_group

        no_rows, no_columns, nothing = Signal(), Signal(), Signal()
        dismiss = Signal()
        m.d.comb += [
            no_rows.eq(p.m == 0),
            no_columns.eq(p.n == 0),
            nothing.eq((p.k == 0) | (no_rows & (no_columns | ~p.release_b))),
            loading.eq(~looping & stream.valid & ~dismiss),
            # A cycle after the last tile started: the way to the next instruction's registers is
            # long.
            stream.ready.eq(dismiss),
        ]
        m.d.sync += dismiss.eq((loading & nothing) | (start & last_tile & last_group))
        with m.If(loading):
            m.d.sync += [
                looping.eq(~nothing),
                has_a.eq(~no_rows),
                has_b.eq(~no_columns),
                first_tile.eq(1),
            ]
        with m.If(start):
            m.d.sync += first_tile.eq(last_tile)
            with m.If(last_tile):
                m.d.sync += looping.eq(~last_group)
                with m.If(has_b):
                    m.d.sync += first_pass.eq(frees_b)

        # The running tile. A row's results leave one a cycle, so the last step waits until `cols`
        # cycles have passed since the last step of the tile before.
        running = Signal()
        stepping = Signal()
        steps = CountDown(
            m,
            config,
            total=p.k,
            step=config.lanes,
            load=start,
            advance=start | stepping,
            name="steps",
        )
        last_step = steps.last
        computes = Signal(reset_less=True)
        reads_a = Signal(reset_less=True)
        reads_b = Signal(reset_less=True)
        releases_a = Signal(reset_less=True)
        releases_b = Signal(reset_less=True)
        ends_group = Signal(reset_less=True)
        step = Signal.like(self.step, reset_less=True)
        apart = Signal(config.cols)

        m.d.comb += stepping.eq(running & (~last_step | apart[0]))
        tile_ends = stepping & last_step
        free_to_start = ~running | tile_ends
        have_group = ~needs_group | groups.available
        have_tile = ~needs_tile | tiles.available
        have_slot = ~real | slots.available
        # Known a cycle before, for the counters are long; a tile's start changes what is wanted,
        # and a cycle later what is there.
        ready, started = Signal(), Signal()
        m.d.sync += [
            ready.eq(looping & ~start & ~started & have_group & have_tile & have_slot),
            started.eq(start),
            groups.take.eq(start & needs_group),
            tiles.take.eq(start & needs_tile),
            slots.take.eq(start & real),
        ]
        m.d.comb += [
            start.eq(ready & free_to_start),
            self.wait_a.eq(looping & ~running & ~have_group),
            self.wait_b.eq(looping & ~running & have_group & ~have_tile),
            self.wait_drain.eq(looping & ~running & have_group & have_tile & ~have_slot),
        ]

        steps_in_word = config.word_bytes // config.lanes
        word_ends = last_step | (step == steps_in_word - 1)
        m.d.comb += [
            self.valid.eq(stepping & computes),
            self.last.eq(last_step),
            self.step.eq(step),
            self.a_release.eq(stepping & releases_a & word_ends),
            self.b_release.eq(stepping & releases_b & word_ends),
        ]

        # After its last tile a group of A is passed; before, the next tile reads it again. The next
        # tile of B follows; after the last one it is the first again, unless the block is freed.
        # What is remembered is the last position before the tile or block.
        passes_a = ends_group
        passes_b = ~ends_group | releases_b
        for position, depth, reads, passes, moves_base in (
            (self.a_position, config.a_depth, reads_a, passes_a, passes_a),
            (self.b_position, config.b_depth, reads_b, passes_b, ends_group & releases_b),
        ):
            before = Signal.like(position, name=f"{position.name}_before", init=depth - 1)
            current = Signal.like(position, name=f"{position.name}_current")
            following = mux_add(
                m,
                Const(1, 1),
                last_step & ~passes,
                before,
                current,
                Shape.cast(range(depth + 1)),
                name=f"{position.name}_following",
                family=config.family,
            )
            m.d.comb += position.eq(current)
            with m.If(stepping & word_ends & reads):
                m.d.sync += current.eq(
                    wrapped(m, following, depth, name=f"{position.name}_wrapped")
                )
                with m.If(last_step & moves_base):
                    m.d.sync += before.eq(current)

        m.d.sync += apart.eq((apart >> 1) | (1 << (config.cols - 1)))
        with m.If(stepping):
            m.d.sync += step.eq(Mux(word_ends, 0, step + 1))
        with m.If(tile_ends):
            m.d.sync += [running.eq(0), apart.eq(1 << (config.cols - 1))]
        with m.If(start):
            m.d.sync += [
                running.eq(1),
                computes.eq(real),
                reads_a.eq(has_a),
                reads_b.eq(has_b),
                releases_a.eq(frees_a),
                releases_b.eq(frees_b),
                ends_group.eq(last_tile),
            ]
        return m
