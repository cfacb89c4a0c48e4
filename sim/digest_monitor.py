"""Computes each instruction's digest from the bytes that an engine writes (`spec/digest.py`)."""

from amaranth import Module, Mux, Signal
from amaranth.hdl import ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.spec.digest import MIX


class DigestMonitor(wiring.Component):
    """Sums the mixed bytes of an instruction's writes.

    `taken`: a write of `width_bytes` bytes at byte address `address` is taken in this cycle, with
    one `mask` bit for each byte. `retire`: the instruction completes in this cycle (writes taken
    in it belong to it); one cycle later `valid` is 1 and `digest` is that instruction's. `clear`:
    what was written so far belongs to no instruction. For simulation only.
    """

    def __init__(self, *, width_bytes: int) -> None:
        self.width_bytes = width_bytes
        super().__init__(
            {
                "taken": In(1),
                "address": In(32),
                "data": In(8 * width_bytes),
                "mask": In(width_bytes),
                "retire": In(1),
                "clear": In(1),
                "valid": Out(1),
                "digest": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(32)
        added = Signal(32)
        bytes_ = [
            Mux(self.mask[i], self._mix(m, i, self.address + i, self.data.word_select(i, 8)), 0)
            for i in range(self.width_bytes)
        ]
        m.d.comb += added.eq(total + Mux(self.taken, sum(bytes_, start=0), 0))
        m.d.sync += [
            total.eq(Mux(self.retire | self.clear, 0, added)),
            self.valid.eq(self.retire),
            self.digest.eq(added),
        ]
        return m

    @staticmethod
    def _mix(m: Module, index: int, address: ValueLike, byte: ValueLike) -> Signal:
        first, shift1, second, shift2 = MIX
        stages = [Signal(32, name=f"mix{index}_{stage}") for stage in range(4)]
        m.d.comb += [
            stages[0].eq(((address << 8) ^ byte)[:32] * first),
            stages[1].eq(stages[0] ^ (stages[0] >> shift1)),
            stages[2].eq(stages[1] * second),
            stages[3].eq(stages[2] ^ (stages[2] >> shift2)),
        ]
        return stages[3]
