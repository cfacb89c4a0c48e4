"""The signatures between units: instructions in, local memory requests, the external memory port.

Rules for every stream: `valid` never waits for `ready`; the payload stays until it is taken;
`ready` never depends combinationally on `valid`.
"""

from functools import reduce
from operator import or_

from amaranth import unsigned
from amaranth.hdl import Shape
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import FORMATS, SYNC_ENGINES, Engine


def pipelined(config: AcceleratorConfig) -> bool:
    """Whether registers stand on the ways from and to memories.

    A local memory of two ports means a large chip with long ways and flip-flops to spare. One of
    one port is a small FPGA's, with a slow clock, where a lone flip-flop takes a logic cell.
    """
    return config.memory_ports == 2


def local_read_latency(config: AcceleratorConfig) -> int:
    """Cycles from the taking of a local read request to its response."""
    return 6 if pipelined(config) else 2


class LocalRead(Signature):
    """A client's read port of local memory, seen from the client.

    `request` is a stream of word addresses. Exactly local_read_latency(config) cycles after a
    request is taken, `response_valid` is 1 for one cycle with the word. There is no ready for
    responses: a client asks only for what it can take.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "request": Out(stream.Signature(unsigned(16))),
                "response_valid": In(1),
                "response": In(8 * config.word_bytes),
            }
        )


def local_write_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A write of local memory: 16-bit word address, data, one mask bit for each byte."""
    return data.StructLayout(
        {"address": 16, "data": 8 * config.word_bytes, "mask": config.word_bytes}
    )


class LocalWrite(Signature):
    """A client's write port of local memory, seen from the client.

    A write that was taken is seen by every read request taken in a later cycle; for one taken in
    the same cycle, the bytes written are undefined.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"request": Out(stream.Signature(local_write_layout(config)))})


def burst_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A burst: first byte (a multiple of bus_bytes) and number of beats (1 to burst_bytes /
    bus_bytes). Bursts never cross a multiple of burst_bytes."""
    beats = config.burst_bytes // config.bus_bytes
    return data.StructLayout({"address": 32, "beats": beats.bit_length()})


class DramRead(Signature):
    """Read half of the external memory port, seen from the accelerator: bursts out, beats in order
    of the bursts in. `data` may be stalled by the accelerator."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "burst": Out(stream.Signature(burst_layout(config))),
                "data": In(stream.Signature(unsigned(8 * config.bus_bytes))),
            }
        )


class DramWrite(Signature):
    """Write half of the external memory port: bursts and their beats out, one `acknowledge` in for
    each burst once it is in memory. A burst is offered only when all of its data is at hand. A read
    burst taken after an acknowledge sees the data."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "burst": Out(stream.Signature(burst_layout(config))),
                "data": Out(stream.Signature(unsigned(8 * config.bus_bytes))),
                "acknowledge": In(stream.Signature(0)),
            }
        )


_DONE_BEFORE = ("wait", "signal", "sample", "_offset", "_dynamic")


def instruction_layout(engine: Engine) -> data.Layout:
    """What an engine sees of its instructions: the fields of all formats that go to it, at their
    place in the 256 bits, so that fields of different formats may overlap; but not what is done
    before it gets them, the tokens and the cutting of sizes."""
    members: dict[str | int, data.Field] = {}
    for form in FORMATS.values():
        if engine in form.engines:
            for field in form.fields:
                if not field.name.endswith(_DONE_BEFORE):
                    members[field.name] = data.Field(field.width, 32 * field.word + field.low)
    return data.FlexibleLayout(256, members)


ENGINE_WORDS: dict[Engine, tuple[int, ...]] = {
    Engine.DMA: (0, 1, 2, 4, 5, 6),
    Engine.LOAD_A: (0, 1, 3, 4),
    Engine.LOAD_B: (0, 1, 3, 4),
    Engine.LOAD_P: (0, 1, 4),
    Engine.EPILOGUE: (0, 1, 2, 3, 4, 5, 6, 7),
    Engine.VECTOR: (0, 1, 2, 3, 4, 5, 6, 7),
    Engine.ARRAY: (0, 1, 2, 3),
}
"""The words of an instruction that an engine's front end keeps."""


def instruction_bits(engine: Engine) -> int:
    """The bits of `instruction_layout(engine)` that an engine gets; the others read 0."""
    words = sum(0xFFFFFFFF << 32 * word for word in ENGINE_WORDS[engine])
    fields = dict(instruction_layout(engine)).values()
    return words & reduce(or_, ((1 << field.width) - 1 << field.offset for field in fields))


class InstructionPort(Signature):
    """An engine's instruction input, seen from the engine: a stream whose transfer means
    *completion*.

    The payload (`instruction_layout(engine)`) stays from `valid` until the engine answers with one
    cycle of `ready`, when everything the instruction does is done: its last write was taken, its
    last read has arrived. Semaphores were awaited before `valid` and are signalled after `ready`.
    ARRAY may find its next instruction in the cycle after `ready`, the others from the second one
    on.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__({"stream": In(stream.Signature(instruction_layout(engine)))})


class FieldPort(Signature):
    """How an engine reads words of its instruction that it has no registers for, seen from it.

    `want` and `index` stay until `valid`, in which cycle `word` is that word. Only while the
    instruction is valid.
    """

    def __init__(self) -> None:
        super().__init__({"want": Out(1), "index": Out(3), "valid": In(1), "word": In(32)})


class SemaphorePort(Signature):
    """Between an engine's front end and the semaphores, seen from the front end.

    While `wait_valid`, the engine wants one token of every engine in `wait_mask`; `wait_ready` is 1
    in one cycle once all of them are taken together. While `signal_valid`, it hands in
    `signal_mask`, to give one token to every engine in it; that happens in the cycle of
    `signal_ready`, once all that were handed in before are given (a counter at SEMAPHORE_MAX makes
    them wait).
    """

    def __init__(self) -> None:
        count = len(SYNC_ENGINES)
        super().__init__(
            {
                "wait_valid": Out(1),
                "wait_mask": Out(count),
                "wait_ready": In(1),
                "signal_valid": Out(1),
                "signal_mask": Out(count),
                "signal_ready": In(1),
            }
        )


def accumulator_shape(config: AcceleratorConfig) -> Shape:
    """A partial sum as the array gives it: signed, accumulator_bits wide."""
    return Shape(config.accumulator_bits, signed=True)
