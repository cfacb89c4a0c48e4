"""The serial epilogue's addresses: a pointer for each operand and row, kept in a RAM."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import FieldPort, instruction_layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Opcode

OUT, RESIDUAL, ADDEND = range(3)


class EpiloguePointers(Component):
    """Word addresses of the next element of each row of a group, for OUT, RESIDUAL and ADDEND.

    `begin` sets them to the first group's rows, `next_group` to the following ones; meanwhile
    `busy` is 1, and the instruction's addresses and strides come through `fields`, for each operand
    that there is rows + 1 of them. `fetch` for one cycle asks for the pointer of `kind` and `row`:
    it is `pointer` from the second cycle on, until the next call. With `step` in that cycle it is
    moved to the next word, for later calls. At least three cycles lie between two calls; `kind`,
    `row` and `step` stay for them.

    An ACTIVATION_TABLE has its table as RESIDUAL.
    """

    instruction: Any
    fields: Any
    begin: Signal
    next_group: Signal
    busy: Signal
    fetch: Signal
    kind: Signal
    row: Signal
    step: Signal
    pointer: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "fields": Out(FieldPort()),
                "begin": In(1),
                "next_group": In(1),
                "busy": Out(1),
                "fetch": In(1),
                "kind": In(2),
                "row": In(range(config.rows)),
                "step": In(1),
                "pointer": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, instruction = self.config.rows, self.instruction
        # The entry behind the rows is the first row of the next group.
        entry = Signal(range(rows + 1))
        kind = Signal(2)
        first = Signal()
        m.submodules.pointers = pointers = Memory(
            shape=16, depth=4 << len(entry), init=[], attrs={"no_rw_check": 1}
        )
        write, read = pointers.write_port(), pointers.read_port()
        table = instruction.opcode == Opcode.ACTIVATION_TABLE
        fields = self.fields
        used = Mux(
            kind == OUT,
            ~table,
            Mux(kind == RESIDUAL, table | instruction.residual, ~table & instruction.addend),
        )
        operand = Signal(16)
        total = Signal(16)
        m.d.comb += [
            # Words 5 to 7 by kind, or a table's word 4.
            fields.index.eq(Cat(Mux(table, 0, kind + 1)[:2], 1)),
            operand.eq(self.step),
            total.eq(self.pointer + operand),
            write.addr.eq(Cat(entry, kind)),
            write.data.eq(total),
            read.addr.eq(Cat(entry, kind)),
        ]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(self.begin | self.next_group):
                    m.d.sync += [kind.eq(0), entry.eq(rows), first.eq(self.begin)]
                    m.next = "READ"
                with m.Elif(self.fetch):
                    m.d.sync += [kind.eq(self.kind), entry.eq(self.row)]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.sync += self.pointer.eq(read.data)
                m.next = "STEP"
            with m.State("STEP"):
                m.d.comb += write.en.eq(1)
                m.next = "IDLE"
            with m.State("READ"):
                m.next = "LOAD"
                with m.If(~used):
                    m.d.sync += kind.eq(kind + 1)
                    m.next = "READ"
                    with m.If(kind == ADDEND):
                        m.next = "IDLE"
            with m.State("LOAD"):
                m.d.comb += fields.want.eq(first)
                m.d.sync += self.pointer.eq(Mux(first, fields.word[:16], read.data))
                with m.If(~first | fields.valid):
                    m.d.sync += entry.eq(0)
                    m.next = "ROWS"
            with m.State("ROWS"):
                again = entry != 0
                m.d.comb += [
                    fields.want.eq(again),
                    operand.eq(Mux(again, fields.word[16:], 0)),
                ]
                with m.If(~again | fields.valid):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += [self.pointer.eq(total), entry.eq(entry + 1)]
                    with m.If(entry == rows):
                        m.d.sync += [kind.eq(kind + 1), entry.eq(rows)]
                        m.next = "READ"
                        with m.If(kind == ADDEND):
                            m.next = "IDLE"
        return m
