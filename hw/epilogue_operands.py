"""The epilogue's reads: operand words from local memory to the elements that the lanes add."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.accumulator_buffer import SUMS_LATENCY
from gateformer.hw.epilogue_queue import Outstanding, Queue
from gateformer.hw.interfaces import LocalRead, instruction_layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode


class EpilogueOperands(Component):
    """Queues reads and their words, and hands every lane its elements.

    `begin` announces a read while `room`; its address follows later with `push`. A piece of columns
    uses epilogue_lanes words of each of its operands, the addend's first. `enough`: the words of
    the next piece are here. `use` with a column says that the column is the first of a piece, `low`
    is its place in the word; lane l has its addend ADDEND_LATENCY + l cycles later and its residual
    `residual_latency` + l cycles later (0 where the instruction wants none). Pieces start at least
    as many cycles apart as they use words.

    For ACTIVATION_TABLE the byte of `column` is `table_byte` while `table_valid`. `none`: all reads
    were used and no byte is under way.
    """

    ADDEND_LATENCY = SUMS_LATENCY + 1

    instruction: Any
    read: Any
    begin: Signal
    room: Signal
    push: Signal
    address: Signal
    column: Signal
    use: Signal
    low: Signal
    enough: Signal
    none: Signal
    addends: View
    residuals: View
    table_valid: Signal
    table_byte: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        lanes = config.epilogue_lanes
        self.depth = max(32, 1 << (4 * lanes - 1).bit_length())
        self.residual_latency = self.ADDEND_LATENCY + lanes
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "read": Out(LocalRead(config)),
                "begin": In(1),
                "room": Out(1),
                "push": In(1),
                "address": In(16),
                "column": In(1),
                "use": In(1),
                "low": In(range(config.word_bytes)),
                "enough": Out(1),
                "none": Out(1),
                "addends": Out(data.ArrayLayout(signed(32), lanes)),
                "residuals": Out(data.ArrayLayout(signed(16), lanes)),
                "table_valid": Out(1),
                "table_byte": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, instruction = self.config, self.instruction
        lanes = config.epilogue_lanes
        # Decoded before the first column, to keep the opcode out of the paths of a column.
        table, residual, used_any = Signal(), Signal(), Signal()
        needed = Signal(range(2 * lanes + 1))
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        has_residual = instruction.residual | is_table
        m.d.sync += [
            table.eq(is_table),
            residual.eq(has_residual),
            used_any.eq(instruction.addend | has_residual),
            needed.eq(Mux(instruction.addend & has_residual, 2 * lanes, lanes)),
        ]
        word_log = (config.word_bytes - 1).bit_length()

        m.submodules.requests = requests = Queue(unsigned(16), self.depth)
        m.submodules.words = words = Queue(unsigned(8 * config.word_bytes), self.depth)
        m.submodules.outstanding = outstanding = Outstanding(self.depth)
        m.d.comb += [
            requests.push.eq(self.push),
            requests.data.eq(self.address),
            self.read.request.valid.eq(requests.valid),
            self.read.request.payload.eq(requests.head),
            requests.pop.eq(requests.valid & self.read.request.ready),
            words.push.eq(self.read.response_valid),
            words.data.eq(self.read.response),
            outstanding.begin.eq(self.begin),
            outstanding.finish.eq(words.pop),
            self.room.eq(outstanding.room),
        ]

        arrived = Signal(range(self.depth + 1))
        m.d.comb += self.enough.eq(arrived >= needed)
        used = Mux(self.use & used_any, needed, 0)
        m.d.sync += arrived.eq(arrived + self.read.response_valid - used)

        # Entry t is what was said t cycles ago.
        last = self.residual_latency + lanes
        use = [self.use]
        low = [self.low]
        column = [self.column]
        for time in range(1, last):
            use.append(Signal(name=f"use_{time}"))
            low.append(Signal.like(self.low, name=f"low_{time}", reset_less=True))
            column.append(Signal(name=f"column_{time}"))
            m.d.sync += [
                use[time].eq(use[time - 1]),
                low[time].eq(low[time - 1]),
                column[time].eq(column[time - 1]),
            ]

        pops = []
        for lane in range(lanes):
            # A word loaded in one cycle is selected from in the next, and that is registered.
            time = self.ADDEND_LATENCY - 2 + lane
            load = use[time] & instruction.addend
            word = Signal(8 * config.word_bytes, name=f"addend_word_{lane}", reset_less=True)
            addend = Signal(signed(32), name=f"addend_{lane}", reset_less=True)
            with m.If(load):
                m.d.sync += word.eq(words.head)
            with m.If(instruction.addend):
                place = low[time + 1][: word_log - 2]
                m.d.sync += addend.eq(word.word_select(place, 32).as_signed())
            with m.Else():
                m.d.sync += addend.eq(0)
            pops.append(load)

            time = self.residual_latency - 2 + lane
            load = use[time] & residual
            word = Signal(8 * config.word_bytes, name=f"residual_word_{lane}", reset_less=True)
            element = Signal(signed(16), name=f"residual_{lane}", reset_less=True)
            with m.If(load):
                m.d.sync += word.eq(words.head)
            with m.If(residual):
                place = Mux(table, low[time + 1][1:], low[time + 1][: word_log - 1])
                m.d.sync += element.eq(word.word_select(place, 16).as_signed())
            with m.Else():
                m.d.sync += element.eq(0)
            pops.append(load)
            m.d.comb += [self.addends[lane].eq(addend), self.residuals[lane].eq(element)]
        m.d.comb += words.pop.eq(Cat(pops).any())

        time = self.residual_latency
        m.d.comb += [
            self.table_valid.eq(column[time] & table),
            self.table_byte.eq(self.residuals[0].as_unsigned().word_select(low[time][0], 8)),
            self.none.eq(outstanding.none & ~Cat(column[1 : time + 1]).any()),
        ]
        return m
