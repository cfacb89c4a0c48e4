"""What the parts of the vector engine say to each other."""

from amaranth.lib.wiring import In, Out, Signature

from gateformer.spec.config import AcceleratorConfig


class WordSource(Signature):
    """Words of rows in order, seen from the reader.

    A word stays for `last_step + 1` cycles of the job, counted by `step`; `valid` is 1 in each of
    them. `last` marks the last word of a row. Words can not be stalled, requests can: the reader
    prepares one only while `allow` is 1, and the last one of a row only while `allow_last` is 1
    too; `issue` is 1 for the cycle in which it does, together with `issue_last` for the last word
    of a row.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "word": Out(8 * config.word_bytes),
                "step": Out(range(config.word_bytes)),
                "last": Out(1),
                "issue": Out(1),
                "issue_last": Out(1),
                "allow": In(1),
                "allow_last": In(1),
            }
        )


class WordSink(Signature):
    """Words to write, seen from the unit that makes them.

    Pushes can not be stalled: the unit reserves `reserve` places (0 to 2), one for each word that
    it will push, in a cycle with `room` = 1. `channel` chooses the address: a push moves it to
    the next row if `next_row`, else to the next word if `next_word`, else it stays.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "room": In(1),
                "reserve": Out(2),
                "push": Out(1),
                "channel": Out(1),
                "data": Out(8 * config.word_bytes),
                "mask": Out(config.word_bytes),
                "next_word": Out(1),
                "next_row": Out(1),
            }
        )
