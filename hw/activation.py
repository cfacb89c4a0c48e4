"""The activation unit: a table, or I-BERT's polynomial for GELU."""

from amaranth import Cat, Module, Mux, Shape, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.multiplier import Multiplier
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.arithmetic import SCALE_SHIFTS
from gateformer.spec.config import AcceleratorConfig

_PARAMETER_BYTES = 24


class Activation(Component):
    """epilogue_lanes look-ups a cycle: `results[l]` belongs to `codes[l]` of `latency` cycles ago.

    `fill_start` for one cycle begins a new table (or set of parameters); each `fill_valid` from the
    next cycle on stores one byte. While `fill_valid`, `lookup` must be 0. While `lookup` is 0, so
    are the results of the next cycle; `lookup` stays 1 while results are under way.
    """

    codes: View
    lookup: Signal
    results: View
    fill_start: Signal
    fill_valid: Signal
    fill_byte: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        lanes = config.epilogue_lanes
        super().__init__(
            {
                "codes": In(data.ArrayLayout(signed(config.activation_bits), lanes)),
                "lookup": In(1),
                "results": Out(data.ArrayLayout(signed(8), lanes)),
                "fill_start": In(1),
                "fill_valid": In(1),
                "fill_byte": In(8),
            }
        )

    @property
    def latency(self) -> int:
        return 2 if self.config.gelu == "table" else PolynomialGelu.LATENCY

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.config.gelu == "table":
            self._table(m)
        else:
            self._polynomial(m)
        return m

    def _table(self, m: Module) -> None:
        bits = self.config.activation_bits
        position = Signal(bits)
        with m.If(self.fill_start):
            m.d.sync += position.eq(0)
        with m.Elif(self.fill_valid):
            m.d.sync += position.eq(position + 1)
        # Written while `lookup` is 0, read while it is 1.
        for lane in range(self.config.epilogue_lanes):
            m.submodules[f"table_{lane}"] = table = WordRam(
                depth=1 << bits, width_bytes=1, blanked=True, family=self.config.family
            )
            m.d.comb += [
                table.write_address.eq(position),
                table.write_data.eq(self.fill_byte),
                table.write_mask.eq(self.fill_valid),
                table.read_address.eq(self.codes[lane]),
                table.blank.eq(~self.lookup),
                self.results[lane].eq(table.read_data),
            ]

    def _polynomial(self, m: Module) -> None:
        # Bytes enter at the top and the first ends lowest; what follows the last is padding.
        parameters = Signal(8 * _PARAMETER_BYTES, reset_less=True)
        missing = Signal(range(_PARAMETER_BYTES + 1))
        with m.If(self.fill_start):
            m.d.sync += missing.eq(_PARAMETER_BYTES)
        with m.Elif(self.fill_valid & (missing != 0)):
            m.d.sync += missing.eq(missing - 1)
            m.d.sync += parameters.eq(Cat(parameters[8:], self.fill_byte))
        for lane in range(self.config.epilogue_lanes):
            m.submodules[f"gelu_{lane}"] = gelu = PolynomialGelu(self.config)
            m.d.comb += [
                gelu.code.eq(self.codes[lane]),
                gelu.enable.eq(self.lookup),
                gelu.bound.eq(parameters[0:12]),
                gelu.one.eq(parameters[32:52]),
                gelu.multiplier.eq(parameters[64:80]),
                gelu.selector.eq(parameters[96:98]),
                gelu.zero.eq(parameters[128:160].as_signed()),
                self.results[lane].eq(gelu.result),
            ]


class PolynomialGelu(Component):
    """`polynomial_gelu` of gateformer.spec.arithmetic for one code a cycle, LATENCY cycles later.

    The parameters and `enable` stay while codes are under way; a cycle without `enable` makes the
    next result 0.
    """

    LATENCY = 16

    code: Signal
    enable: Signal
    bound: Signal
    one: Signal
    multiplier: Signal
    selector: Signal
    zero: Signal
    result: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "code": In(signed(config.activation_bits)),
                "enable": In(1),
                "bound": In(12),
                "one": In(20),
                "multiplier": In(16),
                "selector": In(2),
                "zero": In(signed(32)),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.config.activation_bits
        family = self.config.family

        def register(value: Value, shape: ShapeLike, name: str) -> Signal:
            signal = Signal(shape, name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # 1 to 3: gap = bound - min(|q|, bound).
        magnitude = register(Mux(self.code < 0, -self.code, self.code), bits, "magnitude")
        above = register(magnitude >= self.bound, 1, "above")
        distance = register(self.bound - magnitude, 12, "distance")
        gap = register(Mux(above, 0, distance), 12, "gap")

        # 4 to 6: erf = sign(q) * (one - gap**2); the code of 0 needs no sign, it is a factor below.
        m.submodules.square = square = Multiplier(unsigned(12), unsigned(12), family)
        m.d.comb += [square.a.eq(gap), square.b.eq(gap)]
        erf = register(self.one - square.p, signed(25), "erf")

        code = self.code
        for _ in range(6):
            code = register(code, signed(bits), "code_delayed")
        # 7, 8: the sum of erf and one, with erf's sign.
        side = register(Mux(code < 0, -erf, erf), signed(26), "side")
        factor = register(side + self.one, signed(26), "factor")
        for _ in range(2):
            code = register(code, signed(bits), "code_delayed")

        # 9 to 11: q * (erf + one), 32 bits.
        total = self._product(m, "area", factor, signed(26), code, signed(bits), 32)
        # 12 to 14: times the multiplier.
        product = self._product(m, "scaled", total, signed(32), self.multiplier, unsigned(16), 48)
        # 15: shift and round; 16: zero point and saturation.
        rounded = Signal(signed(33), reset_less=True)
        with m.Switch(self.selector):
            for number, shift in enumerate(SCALE_SHIFTS):
                with m.Case(number):
                    m.d.sync += rounded.eq((product >> shift) + product[shift - 1])
        moved = Signal(signed(34))
        m.d.comb += moved.eq(rounded + self.zero)
        within = moved[7:].all() | ~moved[7:].any()
        limit = Mux(moved < 0, -128, 127)
        result = Signal(signed(8), reset_less=True)
        m.d.comb += self.result.eq(result)
        with m.If(self.enable):
            m.d.sync += result.eq(Mux(within, moved, limit))
        with m.Else():
            m.d.sync += result.eq(0)
        return m

    def _product(
        self,
        m: Module,
        name: str,
        a: Signal,
        a_shape: Shape,
        b: Signal,
        b_shape: Shape,
        width: int,
    ) -> Signal:
        """a * b cut to `width` bits, three cycles later: 17 bits of a in a multiplier, the rest in
        another."""
        family = self.config.family
        low = Multiplier(unsigned(17), b_shape, family)
        high = Multiplier(signed(a_shape.width - 17), b_shape, family)
        m.submodules[f"{name}_low"] = low
        m.submodules[f"{name}_high"] = high
        m.d.comb += [
            low.a.eq(a[:17]),
            high.a.eq(a[17:].as_signed()),
            low.b.eq(b),
            high.b.eq(b),
        ]
        product = Signal(signed(width), name=name, reset_less=True)
        m.d.sync += product.eq(low.p + (high.p << 17))
        return product
