"""One element of the systolic array: a dot product of `lanes` pairs and its accumulator."""

from amaranth import Module, Mux, Shape, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.spec.config import AcceleratorConfig

OPERAND = signed(8)


def operands_layout(lanes: int) -> data.ArrayLayout:
    """One step's operands of a row or a column: `lanes` int8."""
    return data.ArrayLayout(OPERAND, lanes)


def accumulate_latency(lanes: int) -> int:
    """Cycles from operands to the accumulator's input: multiplier and adder tree."""
    return Multiplier.LATENCY + (lanes - 1).bit_length()


class ProcessingElement(Component):
    """Multiplies `lanes` pairs in every cycle, adds them up and accumulates.

    `a` and `b` leave on `a_next` and `b_next` one cycle later. accumulate_latency(lanes) cycles
    after the operands of a step, `accumulate` is 1, with `last` for the last step of a tile: the
    tile's sum then moves to `result` and the accumulator is cleared. Both controls leave on
    `accumulate_next` and `last_next` one cycle later, with the operands' hop to the right. In a
    cycle with `shift` and no `last`, `result` takes `result_before`, the left neighbour's.
    """

    a: data.View
    b: data.View
    accumulate: Signal
    last: Signal
    shift: Signal
    result_before: Signal
    a_next: data.View
    b_next: data.View
    accumulate_next: Signal
    last_next: Signal
    result: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        operands = operands_layout(config.lanes)
        accumulator = Shape(config.accumulator_bits, signed=True)
        super().__init__(
            {
                "a": In(operands),
                "b": In(operands),
                "accumulate": In(1),
                "last": In(1),
                "shift": In(1),
                "result_before": In(accumulator),
                "a_next": Out(operands),
                "b_next": Out(operands),
                "accumulate_next": Out(1),
                "last_next": Out(1),
                "result": Out(accumulator),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        a_hop = Signal.like(self.a, reset_less=True)
        b_hop = Signal.like(self.b, reset_less=True)
        accumulate_hop = Signal()
        last_hop = Signal()
        m.d.sync += [
            a_hop.eq(self.a),
            b_hop.eq(self.b),
            accumulate_hop.eq(self.accumulate),
            last_hop.eq(self.last),
        ]
        m.d.comb += [
            self.a_next.eq(a_hop),
            self.b_next.eq(b_hop),
            self.accumulate_next.eq(accumulate_hop),
            self.last_next.eq(last_hop),
        ]

        terms: list[Signal] = []
        for lane in range(config.lanes):
            multiplier = Multiplier(OPERAND, OPERAND, config.family)
            m.submodules[f"multiplier_{lane}"] = multiplier
            m.d.comb += [multiplier.a.eq(self.a[lane]), multiplier.b.eq(self.b[lane])]
            terms.append(multiplier.p)
        level = 0
        while len(terms) > 1:
            level += 1
            sums = []
            for index in range(len(terms) // 2):
                total = terms[2 * index] + terms[2 * index + 1]
                node = Signal(total.shape(), name=f"tree_{level}_{index}", reset_less=True)
                m.d.sync += node.eq(total)
                sums.append(node)
            terms = sums

        # Clearing after the last step instead of replacing at the first needs no gate on the
        # adder's input: it is the flip-flops' own reset.
        accumulator = Signal.like(self.result)
        result = Signal.like(self.result, reset_less=True)
        total = Signal.like(self.result)
        m.d.comb += [total.eq(accumulator + terms[0]), self.result.eq(result)]
        with m.If(self.accumulate):
            m.d.sync += accumulator.eq(Mux(self.last, 0, total))
        with m.If(self.last | self.shift):
            m.d.sync += result.eq(Mux(self.last, total, self.result_before))
        return m
