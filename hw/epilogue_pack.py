"""Packs the outputs of one lane into words."""

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.spec.config import AcceleratorConfig


class WordPacker(Component):
    """Each of the bytes of `word` takes its half of `output` where `bytes` says so.

    output: 16 bits, or a byte twice; `bytes`: the bytes of the word that it takes, none while there
    is no output. `word` shows it a cycle later.
    """

    output: Signal
    bytes: Signal
    word: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "output": In(16),
                "bytes": In(config.word_bytes),
                "word": Out(8 * config.word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = [Signal(8, name=f"byte_{i}", reset_less=True) for i in range(self.config.word_bytes)]
        m.d.comb += self.word.eq(Cat(word))
        for i, byte in enumerate(word):
            with m.If(self.bytes[i]):
                m.d.sync += byte.eq(self.output.word_select(i % 2, 8))
        return m
