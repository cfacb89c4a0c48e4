"""The norm unit without multipliers: one code at a time."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value

from gateformer.hw.norm_ports import NormPorts
from gateformer.hw.norm_serial_lane import SerialLane, SerialSums
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.vector_constants import RowConstants
from gateformer.hw.vector_ports import group_bytes


class SerialNorm(NormPorts):
    """The norm unit where the array takes the FPGA's multipliers: all products are made bit by bit.

    A code takes SERIAL_PHASE cycles, and as many for each output. While a row's outputs are made,
    the next one's sums are; in between, its constants. The gains of both outputs share three RAMs.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        occupied = Signal()
        constants = self._first_pass(m, occupied)
        self._second_pass(m, constants, occupied)
        return m

    def _first_pass(self, m: Module, occupied: Signal) -> RowConstants:
        """From the row's sums to its constants."""
        source = self.source
        m.submodules.sums = sums = SerialSums(self.config)
        valid = source.valid & ~self.fill
        ends = valid & source.end
        m.d.comb += [
            sums.valid.eq(valid),
            sums.row_end.eq(source.end),
            sums.group.eq(source.group),
            sums.counted.eq(Cat(source.mask[::2])),
            sums.clear.eq(self.start | self.row.free),
        ]
        m.d.sync += self.full.eq(ends | (self.full & ~self.row.free))
        return self.row_constants(m, sums, ends=ends, occupied=occupied)

    def _second_pass(self, m: Module, constants: RowConstants, occupied: Signal) -> None:
        """Code by code: its outputs, and the groups of them."""
        config = self.config
        size = group_bytes(config)
        codes = size // 2
        m.submodules.lane = lane = SerialLane(config)
        number = Signal(range(codes), reset_less=True)
        channel = Signal(range(config.norm_length), reset_less=True)
        arrived = Signal()
        final = Signal(reset_less=True)
        last = Signal()
        row_end = Signal()
        m.d.sync += [arrived.eq(self.replay.go), lane.start.eq(0)]
        with m.If(self.replay.go):
            m.d.sync += final.eq(self.replay.final)
        # Groups behind the last channel, which the row's last word may hold, are dropped.
        with m.If(arrived & self.masks[0]):
            m.d.sync += [number.eq(0), lane.start.eq(1)]
        m.d.comb += [
            last.eq(number == codes - 1),
            row_end.eq(last & self.masks[1]),
            self.done.eq(Mux(arrived, ~self.masks[0], lane.done & last)),
            lane.ready.eq(self.room),
        ]
        with m.If(lane.done):
            m.d.sync += [number.eq(number + 1), channel.eq(channel + 1), lane.start.eq(~last)]
        with m.If((lane.done & row_end) | self.start):
            m.d.sync += [channel.eq(0), occupied.eq(0)]

        gain, bias = self._gains(m, channel, lane.wide)
        m.d.comb += [
            constants.turn_factor.eq(lane.turn_factor),
            constants.turn_offset.eq(lane.turn_offset),
            lane.code.eq(self.groups.word_select(number, 16)),
            lane.factor_bit.eq(constants.factor[0]),
            lane.offset_bit.eq(constants.offset[0]),
            lane.write8.eq(self.write8),
            lane.write16.eq(self.write16),
            lane.shift8.eq(self.shift8),
            lane.shift16.eq(self.shift16),
            lane.gain.eq(gain),
            lane.bias.eq(bias),
        ]

        # As many codes as an int16 group has are a group of the ring; an int8 group has twice as
        # many.
        position = Signal(range(size), reset_less=True)
        data16 = Signal(8 * size, reset_less=True)
        data8 = Signal(8 * size, reset_less=True)
        m.d.sync += [
            signal.eq(0)
            for signal in (self.push, self.group.channel, self.group.end, self.group.final)
        ]
        with m.If(lane.done16):
            m.d.sync += [
                data16.word_select(number, 16).eq(lane.output),
                self.push.eq(last),
                self.group.channel.eq(1),
                self.group.end.eq(row_end),
                self.group.final.eq(row_end & final & ~self.write8),
            ]
        with m.If(lane.done8):
            m.d.sync += [
                data8.word_select(position, 8).eq(lane.output),
                position.eq(position + 1),
                self.push.eq(row_end | (position == size - 1)),
                self.group.end.eq(row_end),
                self.group.final.eq(row_end & final),
            ]
        with m.If((lane.done8 & row_end) | self.start):
            m.d.sync += position.eq(0)
        m.d.comb += self.group.data.eq(Mux(self.push, Mux(self.group.channel, data16, data8), 0))

    def _gains(self, m: Module, channel: Signal, wide: Signal) -> tuple[Value, Value]:
        """Gain and bias of a channel, a cycle after its number."""
        config = self.config
        valid, part, filled = self.records_walk(m)
        bits = 8 * group_bytes(config)
        kept = []
        for name, halfword in (("gains", 0), ("biases_low", 2), ("biases_high", 3)):
            # Filling and normalizing are different instructions: never in one cycle.
            m.submodules[name] = memory = WordRam(
                depth=2 * config.norm_length,
                width_bytes=2,
                registered=False,
                family=config.family,
            )
            place = 16 * halfword
            write = valid & (part == place // bits)
            m.d.comb += [
                memory.write_mask.eq(write.replicate(2)),
                memory.write_address.eq(Cat(self.output16, filled)),
                memory.write_data.eq(self.source.group[place % bits :][:16]),
                memory.read_address.eq(Cat(wide, channel)),
            ]
            kept.append(memory.read_data)
        return kept[0].as_signed(), Cat(kept[1:]).as_signed()
