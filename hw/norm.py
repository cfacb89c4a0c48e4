"""LayerNorm of int16 rows with two outputs."""

from amaranth import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value

from gateformer.hw.norm_ports import RECORD, NormPorts
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.vector_constants import CONSTANT_BITS
from gateformer.hw.vector_gain import CODE, GainLane
from gateformer.hw.vector_normalize import NormalizeLane, RowSums
from gateformer.hw.vector_ports import group_bytes, norm_interval
from gateformer.hw.vector_row import Pieces


class Norm(NormPorts):
    """The norm unit with multipliers: norm_lanes channels take norm_interval cycles.

    A group is held for norm_hold cycles. RowConstants.latency plus about 12 cycles, divided by
    norm_constants, bounds the rate of short rows.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        factor = Signal(CONSTANT_BITS, reset_less=True)
        offset = Signal(CONSTANT_BITS, reset_less=True)
        self._first_pass(m, factor, offset)
        self._second_pass(m, factor, offset)
        return m

    def _pieces(self) -> Pieces:
        """Groups cut into the codes of norm_lanes channels."""
        size = group_bytes(self.config)
        return Pieces(
            group_bits=8 * size,
            mask_bits=size,
            count=size // (2 * self.config.norm_lanes),
            interval=norm_interval(self.config),
        )

    def _first_pass(self, m: Module, factor: Signal, offset: Signal) -> None:
        """From the row's sums to its constants."""
        m.submodules.first = first = self._pieces()
        m.submodules.sums = sums = RowSums(self.config)
        begun = Signal(1 + NormalizeLane.OFFSET_DELAY)
        first.cut(m, self.source, ~self.fill)
        m.d.comb += [
            sums.start.eq(self.start),
            sums.valid.eq(first.take),
            sums.row_end.eq(first.last),
            sums.group.eq(first.piece),
            # Both bytes of a code count, or none.
            sums.counted.eq(Cat(first.counted[::2])),
        ]
        constants = self.row_constants(
            m, sums, ends=first.last, taken=begun[NormalizeLane.OFFSET_DELAY]
        )

        # A row's constants reach the lanes with its first codes.
        m.d.sync += begun.eq(Cat(self.replay.go & self.replay.begin, begun))
        with m.If(begun[0]):
            m.d.sync += factor.eq(constants.factor)
        with m.If(begun[NormalizeLane.OFFSET_DELAY]):
            m.d.sync += offset.eq(constants.offset)

    def _second_pass(self, m: Module, factor: Signal, offset: Signal) -> None:
        """From `go` on: 1 groups, 2 codes, 6 normalized, 14 outputs, 15 groups of them."""
        config = self.config
        size = group_bytes(config)
        lanes = config.norm_lanes
        groups = config.norm_length // lanes
        m.submodules.second = second = self._pieces()
        replayed = Signal(2)
        m.d.sync += replayed.eq(Cat(self.replay.go, self.replay.final))
        m.d.comb += [
            second.valid.eq(replayed[0]),
            second.group.eq(self.groups),
            second.end.eq(self.masks[1]),
        ]
        # Groups behind the last channel, which the row's last word may hold, are dropped.
        take = second.take & self.masks[0]
        end = second.last
        codes_at = 1
        normalized_at = codes_at + NormalizeLane.LATENCY
        address_at = normalized_at - GainLane.ADDRESS_LEAD
        outputs_at = normalized_at + GainLane.LATENCY
        flags: list[Value] = [Cat(take, end, end & replayed[1])]
        for stage in range(1, outputs_at + 2):
            flags.append(Signal(3, name=f"flags_{stage}"))
            m.d.sync += flags[-1].eq(flags[-2])

        address = Signal(range(groups), reset_less=True)
        with m.If(flags[address_at][0]):
            m.d.sync += address.eq(address + 1)
        with m.If(flags[address_at][1] | self.start):
            m.d.sync += address.eq(0)
        fill, fill_address, fill_data = self._fill(m)

        outputs: dict[int, list[Value]] = {8: [], 16: []}
        for lane in range(lanes):
            normalize = NormalizeLane(config)
            m.submodules[f"normalize_{lane}"] = normalize
            code = Signal(CODE, name=f"code_{lane}", reset_less=True)
            m.d.sync += code.eq(second.piece.word_select(lane, 16))
            m.d.comb += [
                normalize.code.eq(code),
                normalize.factor.eq(factor),
                normalize.offset.eq(offset),
            ]
            # Both outputs' gains are halves of a word.
            m.submodules[f"gains_{lane}"] = gains = WordRam(
                depth=groups, width_bytes=4, family=config.family
            )
            fills = [Mux(self.output16 == is_16, fill[lane], 0) for is_16 in (0, 1)]
            m.d.sync += [
                gains.write_mask.eq(Cat(enables[0].replicate(2) for enables in fills)),
                gains.write_address.eq(fill_address),
                gains.write_data.eq(fill_data[:16].replicate(2)),
            ]
            m.d.comb += gains.read_address.eq(address)
            for is_16, (width, bits) in enumerate(((8, 8), (16, config.residual_bits))):
                gain = GainLane(depth=groups, bits=bits, family=config.family)
                m.submodules[f"gain{width}_{lane}"] = gain
                m.d.comb += [
                    gain.fill.eq(fills[is_16][1:]),
                    gain.fill_address.eq(fill_address),
                    gain.fill_data.eq(fill_data[16:]),
                    gain.address.eq(address),
                    gain.gain.eq(gains.read_data.word_select(is_16, 16)),
                    gain.normalized.eq(normalize.normalized),
                    gain.shift.eq(self.shift16 if width == 16 else self.shift8),
                ]
                output = Signal(Shape(width, signed=True), name=f"output{width}_{lane}")
                m.d.comb += output.eq(gain.output)
                outputs[width].append(output)

        # Groups of int16 and of int8 outputs; the latter leave one cycle later, in which there are
        # none of the former.
        delayed = Signal(8 * lanes, reset_less=True)
        m.d.sync += delayed.eq(Cat(outputs[8]))
        packed = []
        for width, write, stage, values in (
            (16, self.write16, outputs_at, Cat(outputs[16])),
            (8, self.write8, outputs_at + 1, delayed),
        ):
            taken, last, final = flags[stage]
            steps = 8 * size // len(values)
            position = Signal(range(steps), name=f"position{width}", reset_less=True)
            data = Signal(8 * size, name=f"packed{width}", reset_less=True)
            full = Signal(name=f"full{width}")
            ends = Signal(2, name=f"ends{width}", reset_less=True)
            with m.If(taken):
                m.d.sync += [
                    data.word_select(position, len(values)).eq(values),
                    position.eq(position + 1),
                ]
            with m.If((taken & last) | self.start):
                m.d.sync += position.eq(0)
            with m.If(self.start):
                m.d.sync += data.eq(0)
            is_final = final & ~self.write8 if width == 16 else final
            m.d.sync += [
                full.eq(taken & write & (last | (position == steps - 1))),
                ends.eq(Mux(taken & write, Cat(last, is_final), 0)),
            ]
            packed.append((full, ends, data))
        (full16, ends16, data16), (full8, ends8, data8) = packed
        group_ends = ends8 | ends16
        m.d.comb += [
            self.push.eq(full8 | full16),
            self.group.channel.eq(full16),
            self.group.data.eq(Mux(full8, data8, data16)),
            self.group.end.eq(group_ends[0]),
            self.group.final.eq(group_ends[1]),
        ]

    def _fill(self, m: Module) -> tuple[list[Value], Value, Value]:
        """What the gains of each lane are filled with: enables, address, data."""
        config = self.config
        parts = RECORD // group_bytes(config)
        lane_bits = config.norm_lanes.bit_length() - 1
        valid, part, channel = self.records_walk(m)
        group = self.source.group
        enables: Value = Const(7, 3)
        data = Cat(group[:16], group[32:])
        if parts > 1:
            enables = Cat(part == 0, (part == 1).replicate(2))
            data = Cat(group[:16], group)
        lanes = [
            Mux(valid & (channel[:lane_bits] == lane), enables, 0)
            for lane in range(config.norm_lanes)
        ]
        return lanes, channel[lane_bits:], data
