"""The dispatcher: decodes and checks instructions and hands them to the engines' queues."""

from collections.abc import Collection
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.front_end import pack_number
from gateformer.hw.queue_ports import QueueWrite
from gateformer.spec.config import INSTRUCTION_BYTES, SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.isa import FORMATS, SAMPLE_BITS, SIZE_WORDS, Engine, Format, Opcode

_NUMBER_BIT = INSTRUCTION_BYTES.bit_length() - 1
"""Lowest bit of a byte address that tells instructions apart."""
POLYNOMIAL_BYTES = 24
"""Bytes of an ACTIVATION_TABLE where the activation unit is the polynomial."""


def size_limits(config: AcceleratorConfig) -> dict[tuple[Opcode, int], int]:
    """The largest size an engine holds, by opcode and size word, where not every size fits."""
    table = POLYNOMIAL_BYTES if config.gelu == "polynomial" else 1 << config.activation_bits
    limits = (
        (Opcode.LOAD_B, "k", config.b_depth * config.word_bytes),
        (Opcode.LOAD_P, "count", config.p_depth),
        (Opcode.GEMM, "k", config.a_depth * config.word_bytes),
        (Opcode.ACTIVATION_TABLE, "count", table),
        (Opcode.SOFTMAX, "length", config.softmax_length),
        (Opcode.NORM, "channels", config.norm_length),
        (Opcode.EXP_TABLE, "count", 256),
        (Opcode.NORM_GAIN, "count", config.norm_length),
    )
    return {
        (opcode, FORMATS[opcode].by_name[name].word): limit
        for opcode, name, limit in limits
        if limit < SIZE_LIMIT
    }


def legal_opcodes(config: AcceleratorConfig) -> Collection[Opcode]:
    """The opcodes that this accelerator executes, HALT aside."""
    missing = {
        "readwrite": (),
        "readonly": (Opcode.DMA_STORE,),
        "none": (Opcode.DMA_LOAD, Opcode.DMA_STORE),
    }[config.dram]
    return [opcode for opcode in Opcode if opcode != Opcode.HALT and opcode not in missing]


class _State(enum.Enum, shape=3):
    TAKE = 0
    DECODE = 1
    SUBTRACT = 2
    CUT = 3
    COMPARE = 4
    CHECK = 5
    PROBE = 6
    WRITE = 7


class Dispatcher(wiring.Component):
    """Takes the words of a program, from its first on after each `restart`, while `enable`.

    Dynamic sizes are cut to `length` (Instruction.at_length), then checked; `length` is that of
    `sample` three cycles after `sample` changed. An instruction goes to
    the queues of its engines when all its words were found legal; a full queue makes it wait. A
    size word takes six cycles, the others two or three, and each engine beyond the first one or
    two more a word.
    `halted` is 1 at a HALT, `illegal` at an instruction that this accelerator does not execute;
    both stay until `restart`. `wants` is 1 while the next word is awaited. `pc` is the address of
    the instruction at hand, relative to the first.
    """

    restart: Signal
    enable: Signal
    length: Signal
    sample: Signal
    words: Any
    queue: Any
    wants: Signal
    halted: Signal
    illegal: Signal
    pc: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "restart": In(1),
                "enable": In(1),
                "length": In(12),
                "sample": Out(SAMPLE_BITS),
                "words": In(stream.Signature(unsigned(32))),
                "queue": Out(QueueWrite()),
                "wants": Out(1),
                "halted": Out(1),
                "illegal": Out(1),
                "pc": Out(24),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue = self.queue
        state = Signal(_State)
        word, index = Signal(32, reset_less=True), Signal(3)
        number = Signal(24 - _NUMBER_BIT)
        opcode = Signal(4)
        difference = Signal(13, reset_less=True)
        limit, bad = Signal(12, reset_less=True), Signal(reset_less=True)
        first, target = Signal(3), Signal(3)
        m.d.comb += [
            queue.engine.eq(target),
            queue.index.eq(index),
            queue.data.eq(self._queued(m, word, index, number, opcode, target)),
            self.words.ready.eq(self.wants),
            self.pc.eq(number << _NUMBER_BIT),
        ]
        with m.Switch(opcode):
            for form in FORMATS.values():
                if form.engines:
                    with m.Case(form.opcode):
                        m.d.comb += first.eq(form.engines[0])

        with m.Switch(state):
            with m.Case(_State.TAKE):
                m.d.comb += self.wants.eq(self.enable)
                m.d.sync += word.eq(self.words.payload)
                with m.If(index == 0):
                    m.d.sync += opcode.eq(self.words.payload)
                    m.d.sync += self.sample.eq(self.words.payload[-SAMPLE_BITS:])
                with m.If(self.enable & self.words.valid), m.Switch(index):
                    with m.Case(0):
                        m.d.sync += state.eq(_State.DECODE)
                    with m.Case(*SIZE_WORDS):
                        m.d.sync += state.eq(_State.SUBTRACT)
                    with m.Default():
                        m.d.sync += state.eq(_State.WRITE)
            with m.Case(_State.DECODE):
                m.d.sync += target.eq(first)
                with m.Switch(opcode):
                    with m.Case(Opcode.HALT):
                        m.d.comb += self.halted.eq(1)
                    with m.Case(*legal_opcodes(self.config)):
                        m.d.comb += self.illegal.eq(self.sample >= self.config.samples)
                        with m.If(~self.illegal):
                            m.d.sync += state.eq(_State.PROBE)
                    with m.Default():
                        m.d.comb += self.illegal.eq(1)
            with m.Case(_State.SUBTRACT):
                m.d.sync += difference.eq(self.length - word[12:24])
                m.d.sync += state.eq(_State.CUT)
            with m.Case(_State.CUT):
                with m.If(word[31] & difference[-1]):
                    m.d.sync += word[:12].eq(0)
                with m.Elif(word[31] & (difference[:12] < word[:12])):
                    m.d.sync += word[:12].eq(difference)
                m.d.sync += [limit.eq(self._limit(m, opcode, index)), state.eq(_State.COMPARE)]
            with m.Case(_State.COMPARE):
                m.d.sync += bad.eq((limit < word[:12]) | self._bad_mode(opcode, index, word))
                m.d.sync += state.eq(_State.CHECK)
            with m.Case(_State.CHECK):
                m.d.comb += self.illegal.eq(bad)
                with m.If(~bad):
                    m.d.sync += state.eq(_State.WRITE)
            with m.Case(_State.PROBE):
                # `full` follows `engine` by a cycle.
                m.d.sync += state.eq(_State.WRITE)
            with m.Case(_State.WRITE):
                m.d.comb += queue.enable.eq(self.enable & ~((index == 0) & queue.full))
                with m.If(queue.enable):
                    self._advance(m, state, index, number, opcode, first, target)
        with m.If(self.restart):
            m.d.sync += [state.eq(_State.TAKE), index.eq(0), number.eq(0)]
        return m

    def _queued(
        self,
        m: Module,
        word: Signal,
        index: Signal,
        number: Signal,
        opcode: Signal,
        target: Signal,
    ) -> Value:
        """What the queue of `target` gets: the masks that are its own in one place, and the
        instruction's number where no engine reads."""
        queued = Signal(32)
        m.d.comb += queued.eq(word)
        with m.Switch(index):
            with m.Case(0):
                own = Signal(16)
                m.d.comb += [own.eq(word), queued.eq(pack_number(0, own, number))]
                with m.If((opcode == Opcode.GEMM) & (target == Engine.EPILOGUE)):
                    m.d.comb += own[4:].eq(word[16:])
            with m.Case(1):
                m.d.comb += queued.eq(pack_number(1, word, number))
        return queued

    def _advance(
        self,
        m: Module,
        state: Signal,
        index: Signal,
        number: Signal,
        opcode: Signal,
        first: Signal,
        target: Signal,
    ) -> None:
        """After a write: on to the next engine, else to the next word or instruction."""
        before, between, last = FORMATS[Opcode.GEMM].engines
        with m.If((opcode == Opcode.GEMM) & ((target == before) | (target == between))):
            m.d.sync += target.eq(Mux(target == before, between, last))
            with m.If(index == 0):
                m.d.sync += state.eq(_State.PROBE)
        with m.Else():
            m.d.sync += [target.eq(first), index.eq(index + 1), state.eq(_State.TAKE)]
            m.d.sync += number.eq(number + index.all())

    def _limit(self, m: Module, opcode: Value, index: Value) -> Value:
        """The largest size that the engine holds."""
        limit = Signal(12, init=SIZE_LIMIT)
        for (number, place), largest in size_limits(self.config).items():
            with m.If((opcode == number) & (index == place)):
                m.d.comb += limit.eq(largest)
        return limit

    def _bad_mode(self, opcode: Value, index: Value, word: Value) -> Value:
        """Whether a GEMM asks for a format that does not exist, or for an option of another one."""
        fields = FORMATS[Opcode.GEMM].by_name
        kind, activation, residual = (
            word[fields[name].low : fields[name].low + fields[name].width]
            for name in ("format", "activation", "residual")
        )
        bad = (
            (kind == 3)
            | (residual.any() & (kind != Format.INT16))
            | (activation.any() & (kind != Format.INT8))
        )
        return (opcode == Opcode.GEMM) & (index == fields["format"].word) & bad
