"""The epilogue's addresses: base + row * stride + word."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_pipeline import cleared, delayed
from gateformer.hw.epilogue_walk import KINDS
from gateformer.hw.interfaces import instruction_layout
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode


class EpilogueAddress(Component):
    """Turns (kind, column) and, a cycle later, the row into a word address, LATENCY cycles later.

    Two multipliers take the place of counters: row * stride, and the column times the size of an
    element. A new address every cycle; `wanted` comes out as `read` (ADDEND, RESIDUAL) or `write`
    (OUT), and `ends`, which comes with the row, as `last`. An ACTIVATION_TABLE reads its table as
    RESIDUAL.
    """

    LATENCY = 4

    instruction: Any
    wanted: Signal
    ends: Signal
    kind: Any
    row: Signal
    column: Signal
    read: Signal
    last: Signal
    write: Signal
    address: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "wanted": In(1),
                "ends": In(1),
                "kind": In(KINDS),
                "row": In(12),
                "column": In(12),
                "read": Out(1),
                "last": Out(1),
                "write": Out(1),
                "address": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        instruction, kind, family = self.instruction, self.kind, self.config.family
        word_log = (self.config.word_bytes - 1).bit_length()
        table = Signal()
        size = Signal(len(Format))
        operand_size = Signal(len(Format))
        m.d.sync += [
            table.eq(instruction.opcode == Opcode.ACTIVATION_TABLE),
            size.eq(1 << instruction.format),
            operand_size.eq(Mux(table, 1 << Format.INT8, 1 << Format.INT16)),
        ]

        # Cycle 0: bytes in front of the column.
        m.submodules.place = place = Multiplier(unsigned(12), unsigned(len(Format)), family)
        m.d.comb += place.a.eq(self.column)
        with m.If(kind.out):
            m.d.comb += place.b.eq(size)
        with m.Elif(kind.residual):
            m.d.comb += place.b.eq(operand_size)
        with m.Else():
            m.d.comb += place.b.eq(1 << Format.INT32)

        # Cycle 1: the row's distance from the first. A table has a single row, whose product is 0.
        strides = (
            cleared(m, instruction.addend_stride, ~kind.addend, "addend_stride")
            | cleared(m, instruction.residual_stride, ~kind.residual, "residual_stride")
            | cleared(m, instruction.out_stride, ~kind.out, "out_stride")
        )
        m.submodules.distance = distance = Multiplier(unsigned(12), unsigned(16), family)
        m.d.comb += [distance.a.eq(self.row), distance.b.eq(strides)]
        bases = (
            cleared(m, instruction.addend_address, ~kind.addend, "addend_base")
            | cleared(m, instruction.residual_address, ~kind.residual | table, "residual_base")
            | cleared(m, instruction.table_address, ~table, "table_base")
            | cleared(m, instruction.out_address, ~kind.out, "out_base")
        )

        # Cycles 2 and 3: the sum.
        base = delayed(m, bases, 1, "base")
        start = Signal(16, reset_less=True)
        address = Signal(16, reset_less=True)
        m.d.sync += [
            start.eq(base + place.p[word_log:]),
            address.eq(start + distance.p),
        ]
        m.d.comb += self.address.eq(address)

        read, write = self.wanted & ~kind.out, self.wanted & kind.out
        for cycle in range(self.LATENCY):
            late = Signal(2, name=f"wanted_{cycle}")
            m.d.sync += late.eq(Cat(read, write))
            read, write = late
        m.d.comb += [
            self.read.eq(read),
            self.write.eq(write),
            self.last.eq(delayed(m, self.ends, self.LATENCY - 1, "ends")),
        ]
        return m
