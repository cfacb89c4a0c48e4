"""Fills one operand ring from local memory: the engines LOAD_A and LOAD_B."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import LOCAL_READ_LATENCY, InstructionPort, LocalRead
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class Loader(Component):
    """Reads rows of an operand word by word and appends them to a ring, row r to bank r mod banks.

    `engine` is LOAD_A or LOAD_B. One group is `banks` rows, the last one of an instruction may have
    fewer; all rows of a group share their positions. The first row of a group takes a free word for
    each word; `release` gives one back. `loaded` is 1 in the cycle in which the last word of a
    group is written, so that the group may be read from the next cycle on.

    One word a cycle as long as words are free and requests are taken. The first request comes one
    cycle after the instruction. An instruction ends when its last word has arrived; one without
    rows or elements takes LOCAL_READ_LATENCY cycles.
    """

    instructions: Any
    read: Any
    release: Signal
    loaded: Signal
    write_enable: Signal
    write_bank: Signal
    write_position: Signal
    write_data: Signal

    def __init__(
        self,
        config: AcceleratorConfig,
        engine: Engine,
        *,
        banks: int,
        depth: int,
    ) -> None:
        self.config = config
        self.engine = engine
        self.banks = banks
        self.depth = depth
        super().__init__(
            {
                "instructions": Out(InstructionPort(engine)),
                "read": Out(LocalRead(config)),
                "release": In(1),
                "loaded": Out(1),
                "write_enable": Out(1),
                "write_bank": Out(range(banks)),
                "write_position": Out(range(depth)),
                "write_data": Out(8 * config.word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word_bytes = self.config.word_bytes
        stream = self.instructions.stream
        p = stream.payload
        rows, address, stride = {
            Engine.LOAD_A: lambda: (p.m, p.a_address, p.a_stride),
            Engine.LOAD_B: lambda: (p.n, p.b_address, p.b_stride),
        }[self.engine]()

        m.submodules.free = free = Credits(self.depth, init=self.depth)
        m.d.comb += free.give.eq(self.release)

        asking = Signal()
        draining = Signal()
        rows_left = Signal.like(rows, reset_less=True)
        k_left = Signal.like(p.k, reset_less=True)
        row_address = Signal.like(address, reset_less=True)
        word_address = Signal.like(address, reset_less=True)
        bank = Signal(range(self.banks), reset_less=True)
        first_row = Signal(reset_less=True)
        group_position = Signal(range(self.depth))
        position = Signal(range(self.depth), reset_less=True)

        taken = Signal()
        last_word = Signal()
        last_row = Signal()
        group_ends = Signal()
        next_row = Signal.like(address)
        next_position = Signal.like(position)
        m.d.comb += [
            self.read.request.valid.eq(asking & (~first_row | free.available)),
            self.read.request.payload.eq(word_address),
            taken.eq(self.read.request.valid & self.read.request.ready),
            free.take.eq(taken & first_row),
            last_word.eq(k_left <= word_bytes),
            last_row.eq(rows_left == 1),
            group_ends.eq(last_row | (bank == self.banks - 1)),
            next_row.eq(row_address + stride),
            next_position.eq(Mux(position == self.depth - 1, 0, position + 1)),
        ]
        with m.If(taken):
            m.d.sync += [
                k_left.eq(k_left - word_bytes),
                word_address.eq(word_address + 1),
                position.eq(next_position),
            ]
            with m.If(last_word):
                m.d.sync += [
                    k_left.eq(p.k),
                    word_address.eq(next_row),
                    row_address.eq(next_row),
                    rows_left.eq(rows_left - 1),
                    asking.eq(~last_row),
                    draining.eq(last_row),
                    first_row.eq(group_ends),
                ]
                with m.If(group_ends):
                    m.d.sync += [bank.eq(0), group_position.eq(next_position)]
                with m.Else():
                    m.d.sync += [bank.eq(bank + 1), position.eq(group_position)]

        # Where a word goes travels beside its request.
        idle = Signal()
        nothing = Signal()
        row_ends = taken & last_word
        empty = idle & stream.valid & nothing
        trail = [(row_ends & group_ends, (row_ends & last_row) | empty, bank, position)]
        for stage in range(LOCAL_READ_LATENCY):
            delayed = (
                Signal(name=f"group_ends_{stage}"),
                Signal(name=f"ends_{stage}"),
                Signal.like(bank, name=f"bank_{stage}", reset_less=True),
                Signal.like(position, name=f"position_{stage}", reset_less=True),
            )
            m.d.sync += [new.eq(old) for new, old in zip(delayed, trail[-1], strict=True)]
            trail.append(delayed)
        loaded, ends, write_bank, write_position = trail[-1]
        m.d.comb += [
            self.loaded.eq(loaded),
            self.write_enable.eq(self.read.response_valid),
            self.write_bank.eq(write_bank),
            self.write_position.eq(write_position),
            self.write_data.eq(self.read.response),
            idle.eq(~asking & ~draining),
            nothing.eq((rows == 0) | (p.k == 0)),
            stream.ready.eq(ends),
        ]
        with m.If(idle & stream.valid):
            m.d.sync += [
                asking.eq(~nothing),
                draining.eq(nothing),
                rows_left.eq(rows),
                k_left.eq(p.k),
                row_address.eq(address),
                word_address.eq(address),
                bank.eq(0),
                first_row.eq(1),
                position.eq(group_position),
            ]
        with m.If(ends):
            m.d.sync += draining.eq(0)
        return m
