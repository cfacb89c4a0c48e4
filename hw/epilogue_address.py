"""The epilogue's addresses: base + row * stride + word."""

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.epilogue_walk import Kind
from gateformer.hw.interfaces import instruction_layout
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode


class EpilogueAddress(Component):
    """Turns (kind, row, word) into a word address of local memory, LATENCY cycles later.

    One multiplier takes the place of three nests of counters. A new address every cycle; `wanted`
    comes out as `read` (ADDEND, RESIDUAL) or `write` (OUT). An ACTIVATION_TABLE reads its table as
    RESIDUAL.
    """

    LATENCY = 3

    instruction: Any
    wanted: Signal
    kind: Signal
    row: Signal
    word: Signal
    read: Signal
    write: Signal
    address: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "wanted": In(1),
                "kind": In(Kind),
                "row": In(12),
                "word": In(12),
                "read": Out(1),
                "write": Out(1),
                "address": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        instruction = self.instruction
        m.submodules.multiplier = multiplier = Multiplier(
            unsigned(12), unsigned(16), self.config.family
        )
        table = instruction.opcode == Opcode.ACTIVATION_TABLE
        base = Signal(16, reset_less=True)
        word = Signal(12, reset_less=True)
        start = Signal(16, reset_less=True)
        m.d.comb += multiplier.a.eq(self.row)
        m.d.sync += word.eq(self.word)
        with m.Switch(self.kind):
            with m.Case(Kind.ADDEND):
                m.d.comb += multiplier.b.eq(instruction.addend_stride)
                m.d.sync += base.eq(instruction.addend_address)
            with m.Case(Kind.RESIDUAL):
                # A table has a single row, whose product is 0.
                m.d.comb += multiplier.b.eq(instruction.residual_stride)
                m.d.sync += base.eq(
                    Mux(table, instruction.table_address, instruction.residual_address)
                )
            with m.Default():
                m.d.comb += multiplier.b.eq(instruction.out_stride)
                m.d.sync += base.eq(instruction.out_address)
        m.d.sync += start.eq(base + word)
        address = Signal(16, reset_less=True)
        m.d.sync += address.eq(start + multiplier.p)
        m.d.comb += self.address.eq(address)

        read = Signal(self.LATENCY)
        write = Signal(self.LATENCY)
        is_out = self.kind == Kind.OUT
        m.d.sync += [
            read.eq((read << 1) | (self.wanted & ~is_out)),
            write.eq((write << 1) | (self.wanted & is_out)),
        ]
        m.d.comb += [self.read.eq(read[-1]), self.write.eq(write[-1])]
        return m
