"""The runtime lengths: one for each sample of a batch."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SAMPLE_BITS


class RuntimeLengths(wiring.Component):
    """Keeps what is written: `length` becomes that of `sample` in each cycle of `write`.

    `current` is the length of sample `select`, two cycles after `select` or a length changed. With
    one sample that is `length` itself, which has to stay. Nothing resets what was written.
    """

    write: Signal
    sample: Signal
    length: Signal
    select: Signal
    current: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "write": In(1),
                "sample": In(SAMPLE_BITS),
                "length": In(12),
                "select": In(SAMPLE_BITS),
                "current": Out(12),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.config.samples == 1:
            m.d.comb += self.current.eq(self.length)
            return m
        memory: Any = Memory(shape=12, depth=self.config.samples, init=[], attrs={"no_rw_check": 1})
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.sample),
            write.data.eq(self.length),
            # Never in the cycle of a write, which so can not meet a read of its address.
            read.en.eq(~self.write),
            read.addr.eq(self.select),
        ]
        m.d.sync += self.current.eq(read.data)
        return m
