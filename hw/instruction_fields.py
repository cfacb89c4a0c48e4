"""The words of an instruction at hand, for an engine that asks for them one by one."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gateformer.hw.interfaces import FieldPort
from gateformer.spec.isa import WORDS


class InstructionFields(wiring.Component):
    """Answers a FieldPort at once from `instruction`, the 256 bits of an engine's payload."""

    instruction: Signal
    fields: wiring.PureInterface

    def __init__(self) -> None:
        super().__init__({"instruction": In(32 * WORDS), "fields": In(FieldPort())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.fields.valid.eq(self.fields.want),
            self.fields.word.eq(self.instruction.word_select(self.fields.index, 32)),
        ]
        return m
