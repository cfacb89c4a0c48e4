"""The epilogue's reads: operand words from local memory to the elements that the lanes add."""

from functools import reduce
from operator import or_
from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.accumulator_buffer import SUMS_LATENCY
from gateformer.hw.credits import Credits
from gateformer.hw.epilogue_pipeline import cleared, delayed
from gateformer.hw.epilogue_queue import Queue
from gateformer.hw.interfaces import LocalRead, instruction_layout, local_read_latency
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode

_DEPTH = 16


class EpilogueOperands(Component):
    """Queues reads and their words, and hands every lane its elements.

    An address comes with `push`, that of the last of a beat's lanes with `last`; at most 16 words
    are asked for and not taken. `available`: there is a word for each of `lanes`; a beat with
    `load_addend` or `load_residual` takes them, for lane l in the l-th cycle after the next.
    `lanes`, `visit` and `low` are the beat's (see `beat_layout`); `visit` and the loads are 0 in a
    cycle without a beat.

    Lane l has the addend of a beat SUMS_LATENCY + l cycles later, as two halves to be ORed, and the
    residual RESIDUAL_LATENCY + l cycles later; each is 0 where the instruction wants none.

    For ACTIVATION_TABLE the byte of a beat is `table_byte` while `table_valid`. `none`: no byte is
    under way.
    """

    RESIDUAL_LATENCY = SUMS_LATENCY + 1
    _LOADED = 2
    """Cycles from a beat to the word in its lane's register."""

    instruction: Any
    read: Any
    push: Signal
    address: Signal
    last: Signal
    available: Signal
    lanes: Signal
    load_addend: Signal
    load_residual: Signal
    visit: Signal
    low: Signal
    none: Signal
    addends: View
    residuals: View
    table_valid: Signal
    table_byte: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        lanes = config.epilogue_lanes
        super().__init__(
            {
                "instruction": In(instruction_layout(Engine.EPILOGUE)),
                "read": Out(LocalRead(config)),
                "push": In(1),
                "address": In(16),
                "last": In(1),
                "available": Out(1),
                "lanes": In(lanes),
                "load_addend": In(1),
                "load_residual": In(1),
                "visit": In(1),
                "low": In(range(config.word_bytes)),
                "none": Out(1),
                "addends": Out(data.ArrayLayout(data.ArrayLayout(signed(32), 2), lanes)),
                "residuals": Out(data.ArrayLayout(signed(16), lanes)),
                "table_valid": Out(1),
                "table_byte": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, instruction = self.config, self.instruction
        word_bits = 8 * config.word_bytes
        request = data.StructLayout({"address": 16, "last": 1})
        m.submodules.requests = requests = Queue(request, _DEPTH)
        m.submodules.words = words = Queue(unsigned(word_bits), _DEPTH)
        m.submodules.complete = complete = Credits(_DEPTH)
        m.d.comb += [
            requests.push.eq(self.push),
            requests.data.address.eq(self.address),
            requests.data.last.eq(self.last),
            self.read.request.valid.eq(requests.valid),
            self.read.request.payload.eq(requests.head.address),
            requests.pop.eq(requests.valid & self.read.request.ready),
            words.push.eq(self.read.response_valid),
            words.data.eq(self.read.response),
            self.available.eq(complete.available),
            complete.take.eq(self.load_addend | self.load_residual),
        ]
        last: Value = requests.pop & requests.head.last
        for cycle in range(local_read_latency(config)):
            late = Signal(name=f"last_{cycle}")
            m.d.sync += late.eq(last)
            last = late
        m.d.comb += complete.give.eq(last)

        # The elements of a word that are not taken, in the cycle in which lane 0 has the word.
        table = Signal()
        residual = Signal()
        total = Signal()
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        m.d.sync += [
            table.eq(is_table),
            residual.eq(instruction.residual | is_table),
            total.eq(instruction.format == Format.INT32),
        ]
        word_log = len(self.low)
        low = delayed(m, self.low, self._LOADED - 1, "low")
        addend_place = Mux(total, low[1 : word_log - 1], low[: word_log - 2])
        residual_place = Mux(table, low[1:], low[: word_log - 1])
        addend_others = Signal(config.word_bytes // 4, reset_less=True)
        residual_others = Signal(config.word_bytes // 2, reset_less=True)
        for others, place, used in (
            (addend_others, addend_place, instruction.addend),
            (residual_others, residual_place, residual),
        ):
            m.d.sync += others.eq(Cat((place != i) | ~used for i in range(len(others))))

        loads: Value = Cat(self.load_addend, self.load_residual)
        exist = self.lanes
        pops = []
        for lane in range(config.epilogue_lanes):
            mine = Signal(2, name=f"loads_{lane}")
            m.d.sync += mine.eq(Mux(exist[lane], loads, 0))
            pops.append(mine)
            held = []
            for number, name in enumerate(("addend", "residual")):
                register = Signal(word_bits, name=f"{name}_word_{lane}", reset_less=True)
                with m.If(mine[number]):
                    m.d.sync += register.eq(words.head)
                held.append(register)
            addends = self._elements(m, held[0], addend_others, f"addend_{lane}")
            residuals = self._elements(m, held[1], residual_others, f"residual_{lane}")
            element = Signal(16, name=f"element_{lane}", reset_less=True)
            m.d.sync += element.eq(reduce(or_, residuals))
            m.d.comb += [
                self.addends[lane][0].eq(reduce(or_, addends[0::2]).as_signed()),
                self.addends[lane][1].eq(reduce(or_, addends[1::2]).as_signed()),
                self.residuals[lane].eq(element.as_signed()),
            ]
            addend_others = delayed(m, addend_others, 1, f"addend_others_{lane}")
            residual_others = delayed(m, residual_others, 1, f"residual_others_{lane}")
            following = Signal(2, name=f"loads_after_{lane}")
            m.d.sync += following.eq(loads)
            loads = following
            exist = delayed(m, exist, 1, f"exist_{lane}")
        m.d.comb += words.pop.eq(Cat(pops).any())

        # The bytes of a table.
        visits = [self.visit]
        for time in range(1, self.RESIDUAL_LATENCY + 1):
            visits.append(Signal(name=f"visit_{time}"))
            m.d.sync += visits[time].eq(visits[time - 1])
        odd = delayed(m, low[0], self.RESIDUAL_LATENCY - self._LOADED + 1, "odd")
        m.d.comb += [
            self.table_valid.eq(visits[-1] & table),
            self.table_byte.eq(self.residuals[0].as_unsigned().word_select(odd, 8)),
            self.none.eq(~Cat(visits[1:]).any()),
        ]
        return m

    def _elements(self, m: Module, word: Signal, others: Value, name: str) -> list[Any]:
        """The elements of the word, a cycle later, 0 where `others` has their bit."""
        size = len(word) // len(others)
        return [
            cleared(m, word.word_select(i, size), others[i], f"{name}_{i}")
            for i in range(len(others))
        ]
