"""Packs the outputs of one lane into masked words."""

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from gateformer.spec.config import AcceleratorConfig


class WordPacker(Component):
    """Collects outputs until `emit`; a cycle later `word` and `mask` are complete and `push` is 1.

    output: the 4 bytes of a 32-bit output, or a narrower one repeated over them; `bytes`: the
    bytes of the word that it takes, none while there is no output. `emit` comes with the last
    output of a word; `exists` with it says whether the word is pushed.
    """

    output: Signal
    bytes: Signal
    emit: Signal
    exists: Signal
    word: Signal
    mask: Signal
    push: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "output": In(32),
                "bytes": In(config.word_bytes),
                "emit": In(1),
                "exists": In(1),
                "word": Out(8 * config.word_bytes),
                "mask": Out(config.word_bytes),
                "push": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = [Signal(8, name=f"byte_{i}", reset_less=True) for i in range(self.config.word_bytes)]
        m.d.comb += self.word.eq(Cat(word))
        for i, byte in enumerate(word):
            with m.If(self.bytes[i]):
                m.d.sync += byte.eq(self.output.word_select(i % 4, 8))
        emitted = Signal()
        exists = Signal(reset_less=True)
        m.d.sync += [emitted.eq(self.emit), exists.eq(self.exists)]
        with m.If(emitted):
            m.d.sync += self.mask.eq(self.bytes)
        with m.Else():
            m.d.sync += self.mask.eq(self.mask | self.bytes)
        m.d.comb += self.push.eq(emitted & exists)
        return m
