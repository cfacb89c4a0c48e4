"""A ring of operands next to the array: one bank for each row of A or column of B."""

from amaranth import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import pipelined
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.processing_element import operands_layout
from gateformer.spec.config import AcceleratorConfig


def ring_latency(config: AcceleratorConfig) -> int:
    """Cycles from a read position to the operands of bank 0: the RAM's, and one for the way.

    RAM blocks and multipliers lie far apart, and the RAM's parts are chosen between: a register
    there took the ECP5-85F array engine from 109 to 131 MHz (one seed each).
    """
    return 3 if pipelined(config) else 1


class Ring(Component):
    """`banks` banks of `depth` words that share their positions.

    `write_data` is written at `write_position` of the banks whose bit of `write_enable` is 1.

    Step `read_step` (of the word_bytes / lanes steps in a word) of the word at `read_position` is
    read from bank 0 at once and from bank i, if `skewed`, i cycles later: `operands[i]` holds it
    ring_latency(config) cycles after that. Who releases a position waits for its last read. The
    RAMs are read in every cycle; only a word that nobody uses may be read while it is written.
    """

    write_enable: Signal
    write_position: Signal
    write_data: Signal
    read_position: Signal
    read_step: Signal
    operands: data.View

    def __init__(
        self, config: AcceleratorConfig, *, banks: int, depth: int, skewed: bool = True
    ) -> None:
        self.config = config
        self.banks = banks
        self.depth = depth
        self.skewed = skewed
        super().__init__(
            {
                "write_enable": In(banks),
                "write_position": In(range(depth)),
                "write_data": In(8 * config.word_bytes),
                "read_position": In(range(depth)),
                "read_step": In(range(config.word_bytes // config.lanes)),
                "operands": Out(data.ArrayLayout(operands_layout(config.lanes), banks)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        position, step = self.read_position, self.read_step
        operands = Signal.like(self.operands, reset_less=True)
        words = []
        for i in range(self.banks):
            bank = WordRam(
                depth=self.depth,
                width_bytes=config.word_bytes,
                registered=pipelined(config),
                luts=True,
                family=config.family,
            )
            m.submodules[f"bank_{i}"] = bank
            if i and self.skewed:
                delayed = Signal.like(position, name=f"position_{i}", reset_less=True)
                m.d.sync += delayed.eq(position)
                position = delayed
            m.d.comb += [
                bank.write_address.eq(self.write_position),
                bank.write_data.eq(self.write_data),
                bank.write_mask.eq(self.write_enable[i].replicate(config.word_bytes)),
                bank.read_address.eq(position),
            ]
            words.append(bank.read_data)
        # A step is chosen behind the RAM, so its delay is longer by the RAM's.
        latency = bank.latency
        steps = [step]
        for delay in range(1, latency + self.banks):
            delayed = Signal.like(step, name=f"step_{delay}", reset_less=True)
            m.d.sync += delayed.eq(steps[-1])
            steps.append(delayed)
        for i, word in enumerate(words):
            chosen = word.word_select(steps[latency + i * self.skewed], 8 * config.lanes)
            domain = m.d.sync if pipelined(config) else m.d.comb
            domain += operands[i].as_value().eq(chosen)
        m.d.comb += self.operands.eq(operands)
        return m
