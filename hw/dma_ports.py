"""The ports between local memory's words and the external port's beats."""

from amaranth import Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from gateformer.spec.config import AcceleratorConfig


class GatherPorts(Component):
    """Beats in, words out, the first beat lowest.

    mask: which bytes of `word` are given; word_ends: its last ones are. complete: the last beat of
    a word is taken in this cycle. drop: beats are taken, words vanish.
    """

    beat: stream.Interface
    word: stream.Interface
    mask: Signal
    word_ends: Signal
    complete: Signal
    drop: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.beats = config.word_bytes // config.bus_bytes
        super().__init__(
            {
                "beat": In(stream.Signature(8 * config.bus_bytes)),
                "word": Out(stream.Signature(8 * config.word_bytes)),
                "mask": Out(config.word_bytes),
                "word_ends": Out(1),
                "complete": Out(1),
                "drop": In(1),
            }
        )


class SplitPorts(Component):
    """Words in, beats out, through a buffer of `words` words, a power of two.

    pace: a word may be asked for; asked: one is, and comes `word_valid` later, never refused; never
    more than `words` are asked for and not yet gone. word_ends: the word that is asked for is the
    next one then, not the same again. filling: a word is on its way into the buffer. enable: the
    word in front may go to the port; complete: its last beat begins to do so in this cycle.
    """

    pace: Signal
    asked: Signal
    word_ends: Signal
    word_valid: Signal
    word: Signal
    filling: Signal
    beat: stream.Interface
    enable: Signal
    complete: Signal

    def __init__(self, config: AcceleratorConfig, *, words: int) -> None:
        self.config = config
        self.words = words
        self.beats = config.word_bytes // config.bus_bytes
        super().__init__(
            {
                "pace": Out(1),
                "asked": In(1),
                "word_ends": Out(1),
                "word_valid": In(1),
                "word": In(8 * config.word_bytes),
                "filling": Out(1),
                "beat": Out(stream.Signature(8 * config.bus_bytes)),
                "enable": In(1),
                "complete": Out(1),
            }
        )
