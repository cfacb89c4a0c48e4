"""One element of the systolic array: a dot product of `lanes` pairs and its accumulator."""

from typing import Any

from amaranth import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import pipelined
from gateformer.hw.primitives.adder import add_signed
from gateformer.hw.primitives.lut_multiplier import LutMultiplier
from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.primitives.multiplier_pair import MultiplierPair
from gateformer.spec.config import AcceleratorConfig

OPERAND = signed(8)
CONTROLS = data.StructLayout({"accumulate": 1, "clear": 1, "discard": 1})
RESET_CONTROLS: Any = {"accumulate": 0, "clear": 1, "discard": 1}


def operands_layout(lanes: int) -> data.ArrayLayout:
    """One step's operands of a row or a column: `lanes` int8."""
    return data.ArrayLayout(OPERAND, lanes)


def accumulate_latency(config: AcceleratorConfig) -> int:
    """Cycles from operands to the accumulator's input: product, its way, and adder tree."""
    return Multiplier.LATENCY + _way(config) + (config.lanes - 1).bit_length()


def _way(config: AcceleratorConfig) -> int:
    """Registers between a multiplier and the adder tree.

    The multipliers of one element may lie a whole chip apart: 6.2 ns of wire in an ECP5-85F. A
    product of LUTs comes a cycle later anyway.
    """
    return int(pipelined(config) or config.lut_multipliers > 0)


def sum_of_products(
    m: Module, config: AcceleratorConfig, a: data.View, b: data.View, *, prefix: str = ""
) -> Value:
    """The dot product of two steps' operands, accumulate_latency(config) cycles later."""
    hard = config.lanes - config.lut_multipliers
    products: list[Any] = []
    for lane in range(0, hard - 1, 2):
        pair: Any = MultiplierPair(config.family)
        m.submodules[f"{prefix}multipliers_{lane}"] = pair
        for i in range(2):
            m.d.comb += [pair.a[i].eq(a[lane + i]), pair.b[i].eq(b[lane + i])]
            products.append(pair.p[i])
    if hard % 2:
        m.submodules[f"{prefix}multiplier_{hard - 1}"] = single = Multiplier(
            OPERAND, OPERAND, config.family
        )
        m.d.comb += [single.a.eq(a[hard - 1]), single.b.eq(b[hard - 1])]
        products.append(single.p)
    terms: list[Any] = []
    for lane, arrived in enumerate(products):
        if _way(config):
            arrived = Signal(arrived.shape(), name=f"{prefix}product_{lane}", reset_less=True)
            m.d.sync += arrived.eq(products[lane])
        terms.append(arrived)
    for lane in range(hard, config.lanes):
        product = LutMultiplier(OPERAND.width, config.family)
        m.submodules[f"{prefix}product_{lane}"] = product
        m.d.comb += [product.a.eq(a[lane]), product.b.eq(b[lane])]
        terms.append(product.p)
    level = 0
    while len(terms) > 1:
        level += 1
        sums = []
        for index in range(len(terms) // 2):
            left, right = terms[2 * index], terms[2 * index + 1]
            name = f"{prefix}tree_{level}_{index}"
            node = Signal(signed(len(left) + 1), name=name, reset_less=True)
            m.d.sync += node.eq(add_signed(m, left, right, len(node), name=f"{name}_sum"))
            sums.append(node)
        terms = sums
    return terms[0]


class ProcessingElement(Component):
    """Multiplies `lanes` pairs in every cycle, adds them up and accumulates.

    `a` and `b` leave on `a_next` and `b_next` one cycle later. accumulate_latency(config) cycles
    after the operands of a step, `controls.accumulate` is 1. For the last step of a tile, `clear`
    is 1 and `discard` 0: the tile's sum then is `result` for one cycle, the next, and the
    accumulator is cleared. `result` is 0 in all other cycles, so that those of several elements can
    be joined by an OR. The controls leave on `controls_next` one cycle later, with the operands'
    hop to the right.

    A reset sets `clear` and `discard`, so that accumulator and result need none of their own.
    """

    a: data.View
    b: data.View
    controls: data.View
    a_next: data.View
    b_next: data.View
    controls_next: data.View
    result: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        operands = operands_layout(config.lanes)
        super().__init__(
            {
                "a": In(operands),
                "b": In(operands),
                "controls": In(CONTROLS),
                "a_next": Out(operands),
                "b_next": Out(operands),
                "controls_next": Out(CONTROLS),
                "result": Out(Shape(config.accumulator_bits, signed=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        a_hop = Signal.like(self.a, reset_less=True)
        b_hop = Signal.like(self.b, reset_less=True)
        controls_hop = Signal(CONTROLS, init=RESET_CONTROLS)
        m.d.sync += [a_hop.eq(self.a), b_hop.eq(self.b), controls_hop.eq(self.controls)]
        m.d.comb += [
            self.a_next.eq(a_hop),
            self.b_next.eq(b_hop),
            self.controls_next.eq(controls_hop),
        ]

        term = sum_of_products(m, config, self.a, self.b)

        # Clearing after the last step instead of replacing at the first, and a result of 0 instead
        # of one that stays, need no gate: they are the flip-flops' own resets.
        bits = config.accumulator_bits
        accumulator = Signal(signed(bits), reset_less=True)
        result = Signal(signed(bits), reset_less=True)
        total = add_signed(m, accumulator, term, bits, name="total")
        with m.If(self.controls.clear):
            m.d.sync += accumulator.eq(0)
        with m.Elif(self.controls.accumulate):
            m.d.sync += accumulator.eq(total)
        m.d.sync += result.eq(Mux(self.controls.discard, 0, total))
        m.d.comb += self.result.eq(result)
        return m
