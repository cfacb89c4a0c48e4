"""The vector engine in few logic cells: a small processor with a fixed program."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, Out, connect
from amaranth.utils import exact_log2

from gateformer.hw.instruction_fields import InstructionFields
from gateformer.hw.interfaces import FieldPort, InstructionPort, LocalRead, LocalWrite
from gateformer.hw.microcode import (
    BANKED,
    CAPACITY,
    FIELDS,
    WORD_BITS,
    Action,
    Condition,
    Op,
)
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.vector_microcode import EXP_ENTRIES, memory_contents, memory_depth, program
from gateformer.hw.vector_operations import OPERATIONS, Addend, Carry, Operand
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class VectorProcessor(Component):
    """Executes SOFTMAX, NORM, EXP_TABLE and NORM_GAIN as `VectorEngine` does, for
    config.multipliers == "serial": one at a time, and one score or code at a time.

    An accumulator, a multiplier register, an adder, and a memory for registers, roots and gains;
    hw/microcode.py says what a word of the program does in its cycle. `fields` is its way to the
    instruction where the config has no prefetch; else it reads the payload. `busy` is 1 while there
    is an instruction.

    A score takes about 40 cycles in both passes and a row 800 beside them; a code of a norm takes
    some 300 for both outputs.
    """

    instructions: Any
    fields: Any
    read: Any
    write: Any
    busy: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        fields = {} if config.prefetch else {"fields": Out(FieldPort())}
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.VECTOR)),
                **fields,
                "read": Out(LocalRead(config)),
                "write": Out(LocalWrite(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stream = self.instructions.stream
        fields = self._fields(m)

        # After a reset the first word is looked up; what stands there before is not heeded.
        started = Signal()
        m.d.sync += started.eq(1)
        m.submodules.program = rom = Memory(
            shape=WORD_BITS,
            depth=CAPACITY,
            init=program(self.config),
            attrs={"ram_style": "block"},
        )
        code = rom.read_port()
        word: dict[str, Value] = {}
        low = 0
        for name, width in FIELDS.items():
            word[name] = Signal(width, name=name)
            m.d.comb += word[name].eq(code.data[low : low + width])
            low += width
        does = {action: Signal(name=f"does_{action.name.lower()}") for action in Action}
        for action, signal in does.items():
            m.d.comb += signal.eq(started & (word["action"] == action))

        accumulator = Signal(17, reset_less=True)
        multiplier = Signal(16, reset_less=True)
        flag = Signal(reset_less=True)
        wide = Signal()
        place = Signal(exact_log2(self.config.word_bytes), reset_less=True)
        count = Signal(5, reset_less=True)
        m.d.sync += [count.eq(count - 1), wide.eq(wide ^ does[Action.SWAP])]
        with m.If(does[Action.COUNT]):
            m.d.sync += count.eq(word["write"])
        with m.If(does[Action.SELECT]):
            m.d.sync += place.eq(accumulator)

        external = self._external(m, word, fields, place, wide)
        total, carry = self._adder(m, word["op"], accumulator, multiplier, flag, external, does)
        self._memory(m, word, accumulator, total, wide, started, does)

        # What is external is heeded a cycle late.
        answered = Signal()
        m.d.sync += answered.eq(fields.valid | self.read.response_valid)
        arrived = Signal()
        branch = Signal()
        with m.Switch(word["action"]):
            for action, there in (
                (Action.READ, self.read.request.ready),
                (Action.WRITE, self.write.request.ready),
                (Action.FIELD, answered),
                (Action.RESPONSE, answered),
                (Action.IDLE, stream.valid),
                (Action.REPEAT, count == 0),
            ):
                with m.Case(action):
                    m.d.comb += arrived.eq(there)
            with m.Default():
                m.d.comb += arrived.eq(1)
        with m.Switch(word["condition"]):
            for condition, holds in (
                (Condition.WIDE, wide),
                (Condition.CARRY, carry),
                (Condition.ODD, accumulator[0]),
            ):
                with m.Case(condition):
                    m.d.comb += branch.eq(holds)
        following = Cat(word["next"][0] | branch, word["next"][1:])
        m.d.comb += [
            code.en.eq(arrived | ~started),
            code.addr.eq(Mux(started, following, 0)),
            stream.ready.eq(does[Action.DONE]),
            self.busy.eq(stream.valid),
            self.read.request.valid.eq(does[Action.READ]),
            self.read.request.payload.eq(accumulator),
            fields.want.eq(does[Action.FIELD] & ~answered),
            fields.index.eq(word["read"][1:]),
        ]
        self._write(m, accumulator, multiplier, place, wide, does[Action.WRITE])
        return m

    def _fields(self, m: Module) -> Any:
        """The way to the instruction's words."""
        if not self.config.prefetch:
            return self.fields
        port = FieldPort().create(path=("fields",))
        m.submodules.fields = fields = InstructionFields()
        m.d.comb += fields.instruction.eq(self.instructions.stream.payload)
        connect(m, port, fields.fields)
        return port

    def _external(
        self, m: Module, word: dict[str, Value], fields: Any, place: Value, wide: Value
    ) -> Value:
        """Two bytes of the word that local memory gives, or a byte as the upper one; while a field
        is asked for, its half."""
        asks = Signal()
        m.d.comb += asks.eq(word["action"] == Action.FIELD)
        # In a register: local memory is far away.
        half = Signal(16, reset_less=True)
        pieces = []
        for i in range(self.config.word_bytes // 2):
            here = Signal(name=f"here_{i}")
            m.d.comb += here.eq((place[1:] == i) & ~asks)
            piece = self.read.response.word_select(i, 16)
            upper = Mux(wide | place[0], piece[8:], piece[:8])
            pieces.append(Cat(piece[:8], upper) & here.replicate(16))
        # The upper bits of the lower half belong to a size's offset.
        upper_half, size = word["read"][0], ~word["read"][3]
        lower = Cat(fields.word[:12], fields.word[12:16] & (~size).replicate(4))
        pieces.append(Mux(upper_half, fields.word[16:], lower) & asks.replicate(16))
        total: Value = Const(0, 16)
        for piece in pieces:
            total = total | piece
        m.d.sync += half.eq(total)
        return half

    def _adder(
        self,
        m: Module,
        op: Value,
        accumulator: Signal,
        multiplier: Signal,
        flag: Signal,
        external: Value,
        does: dict[Action, Signal],
    ) -> tuple[Signal, Signal]:
        """The sum of 17 bits, and the flag as it is from now on."""
        m.submodules.exp_table = table = WordRam(
            depth=EXP_ENTRIES, width_bytes=1, registered=False, family=self.config.family
        )
        operand = Signal(16, name="operand")
        self.operand = operand
        addend = Signal(Addend)
        chosen = Signal(Operand)
        carry_in = Signal(Carry)
        signed, gated, moves, to_a, to_q, to_flag = (
            Signal(name=name) for name in ("signed", "gated", "moves", "to_a", "to_q", "to_flag")
        )
        with m.Switch(op):
            for number in Op:
                o = OPERATIONS[number]
                with m.Case(number):
                    m.d.comb += [
                        addend.eq(o.addend),
                        chosen.eq(o.operand),
                        carry_in.eq(o.carry),
                        signed.eq(o.signed),
                        gated.eq(o.gated),
                        moves.eq(o.moves),
                        to_a.eq(o.to_a),
                        to_q.eq(o.to_q),
                        to_flag.eq(o.to_flag),
                    ]
        a = Signal(17)
        with m.Switch(addend):
            with m.Case(Addend.A):
                m.d.comb += a.eq(accumulator)
            with m.Case(Addend.HALF_A):
                m.d.comb += a.eq(Cat(accumulator[1:], accumulator[-1] & signed))
        b = Signal(16)
        used = Signal()
        m.d.comb += used.eq(~gated | multiplier[0])
        with m.Switch(chosen):
            with m.Case(Operand.M):
                m.d.comb += b.eq(operand & used.replicate(16))
            with m.Case(Operand.NOT_M):
                m.d.comb += b.eq(~operand & used.replicate(16))
            with m.Case(Operand.Q):
                m.d.comb += b.eq(multiplier)
            with m.Case(Operand.EXTERNAL):
                m.d.comb += b.eq(external)
            with m.Case(Operand.EXP):
                m.d.comb += b.eq(table.read_data)
        ones = Signal()
        with m.Switch(carry_in):
            with m.Case(Carry.ONE):
                m.d.comb += ones.eq(used)
            with m.Case(Carry.FLAG):
                m.d.comb += ones.eq(flag)
        total = Signal(17)
        carry = Signal()
        m.d.comb += [
            total.eq(a + Cat(b, b[-1] & signed) + ones),
            carry.eq(Mux(to_flag, total[-1], flag)),
            table.write_mask.eq(does[Action.FILL]),
            table.write_address.eq(accumulator[8:16]),
            table.write_data.eq(total[8:16]),
            table.read_address.eq(accumulator[8:16]),
        ]
        m.d.sync += flag.eq(carry)
        with m.If(to_a):
            m.d.sync += accumulator.eq(total)
        with m.If(to_q):
            m.d.sync += multiplier.eq(Mux(moves, Cat(multiplier[1:], accumulator[0]), total))
        return total, carry

    def _memory(
        self,
        m: Module,
        word: dict[str, Value],
        accumulator: Signal,
        total: Signal,
        wide: Signal,
        started: Signal,
        does: dict[Action, Signal],
    ) -> None:
        """Registers, roots and gains."""
        m.submodules.memory = memory = Memory(
            shape=16,
            depth=memory_depth(self.config),
            init=memory_contents(self.config),
            attrs={"no_rw_check": 1, "ram_style": "block"},
        )
        read, write = memory.read_port(), memory.write_port()
        bank = exact_log2(BANKED & -BANKED) - 1

        def register(number: Value) -> Value:
            banked = (number & BANKED) == BANKED
            return Cat(number[:bank], number[bank] | (banked & wide), number[bank + 1 :])

        m.d.comb += [
            self.operand.eq(read.data),
            read.addr.eq(Mux(does[Action.PEEK], accumulator, register(word["read"]))),
            write.addr.eq(Mux(does[Action.POKE], accumulator, register(word["write"]))),
            write.data.eq(total),
            write.en.eq(started & (word["action"] != Action.COUNT)),
        ]

    def _write(
        self,
        m: Module,
        address: Signal,
        data: Signal,
        place: Signal,
        wide: Signal,
        valid: Signal,
    ) -> None:
        """The lower byte of the data, or both, all over the word, and the bytes that they take."""
        payload = self.write.request.payload
        half = Cat(data[:8], Mux(wide, data[8:], data[:8]))
        m.d.comb += [
            self.write.request.valid.eq(valid),
            payload.address.eq(address),
            payload.data.eq(half.replicate(self.config.word_bytes // 2)),
            payload.mask.eq(
                Cat(
                    (place[1:] == i // 2) & (wide | (place[0] == i % 2))
                    for i in range(self.config.word_bytes)
                )
            ),
        ]
