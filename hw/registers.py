"""The control and status registers, as in spec/registers.py."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.counters import CYCLES
from gateformer.hw.interfaces import LocalRead, LocalWrite, local_read_latency
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SAMPLE_BITS
from gateformer.spec.registers import IDENTITY, Counter, Register

REQUEST = data.StructLayout({"address": 6, "write": 1, "data": 32})
"""A register access: word address, 1 to write, the data to write."""


class RegisterBus(wiring.Signature):
    """The host's bus, seen from the host: requests out; for each read a response in, in order."""

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(unsigned(32))),
            }
        )


class _State(enum.Enum, shape=3):
    IDLE = 0
    FETCH = 1
    SETTLE = 2
    SELECT = 3
    RESPOND = 4
    LOCAL_WRITE = 5
    LOCAL_READ = 6
    LOCAL_WAIT = 7


class Registers(wiring.Component):
    """One access at a time: a write takes one cycle, a read answers four cycles later.

    `start` and `stop` are pulses; a start while `running` is not passed on. `program`,
    `window_base`, `window_size`, `length` and `sample` (both of LENGTH) hold what was written;
    `write_length` is 1 in the cycle after a write of LENGTH. A read of CYCLES or COUNTER waits
    until the counters are settled, which during a program they are not; then `select` names the
    total that `value` shows two cycles later. Writes to registers that can not be written are
    ignored; those that can not be read read 0. Where DRAM is not read-write, LOCAL_DATA goes to
    local memory through `read` and `write`, at its pace, and then LOCAL_ADDRESS moves on by 4;
    elsewhere both read 0.
    """

    bus: Any
    start: Signal
    stop: Signal
    program: Signal
    length: Signal
    sample: Signal
    write_length: Signal
    window_base: Signal
    window_size: Signal
    running: Signal
    done: Signal
    error: Signal
    code: Signal
    engine: Signal
    error_pc: Signal
    select: Signal
    value: Signal
    settled: Signal
    read: Any
    write: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.has_local = config.dram != "readwrite"
        members = {
            "bus": In(RegisterBus()),
            "start": Out(1),
            "stop": Out(1),
            "program": Out(config.dram_bits),
            "length": Out(12),
            "sample": Out(SAMPLE_BITS),
            "write_length": Out(1),
            "window_base": Out(config.dram_bits),
            "window_size": Out(config.dram_bits + 1),
            "running": In(1),
            "done": In(1),
            "error": In(1),
            "code": In(4),
            "engine": In(3),
            "error_pc": In(24),
            "select": Out(range(CYCLES + 1)),
            "value": In(32),
            "settled": In(1),
        }
        if self.has_local:
            members |= {"read": Out(LocalRead(config)), "write": Out(LocalWrite(config))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        payload = request.payload
        address = Signal(4)
        beyond = Signal()
        state = Signal(_State)
        counter = Signal(range(len(Counter)))
        result = Signal(32, reset_less=True)
        status = Cat(self.running, self.done, self.error, Const(0, 1), self.code, self.engine)
        readable: dict[Register, Value] = {
            Register.IDENTITY: Const(IDENTITY, 32),
            Register.CONFIG_HASH: Const(self.config.hash, 32),
            Register.STATUS: status,
            Register.ERROR_PC: self.error_pc,
            Register.PROGRAM: self.program,
            Register.CYCLES: self.value,
            Register.COUNTER_SELECT: counter,
            Register.COUNTER: self.value,
        }
        writable = {
            Register.PROGRAM: self.program,
            Register.WINDOW_BASE: self.window_base,
            Register.WINDOW_SIZE: self.window_size,
            Register.COUNTER_SELECT: counter,
        }
        local = Signal(range(self.config.local_bytes))
        if self.has_local:
            readable[Register.LOCAL_ADDRESS] = local
            writable[Register.LOCAL_ADDRESS] = local

        m.d.comb += [
            self.select.eq(Mux(address == Register.CYCLES, CYCLES, counter)),
            request.ready.eq(state == _State.IDLE),
            response.valid.eq(state == _State.RESPOND),
            response.payload.eq(result),
        ]
        m.d.sync += self.write_length.eq(0)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += [address.eq(payload.address), beyond.eq(payload.address[4:].any())]
                with m.If(request.valid & payload.write), m.Switch(payload.address):
                    for register, target in writable.items():
                        with m.Case(register):
                            m.d.sync += target.eq(payload.data)
                    with m.Case(Register.LENGTH):
                        m.d.sync += [
                            self.length.eq(payload.data),
                            self.sample.eq(payload.data[16:]),
                            self.write_length.eq(1),
                        ]
                    with m.Case(Register.CONTROL):
                        m.d.comb += self.start.eq(payload.data[0] & ~self.running)
                        m.d.comb += self.stop.eq(payload.data[1])
                    if self.has_local:
                        with m.Case(Register.LOCAL_DATA):
                            m.d.sync += [result.eq(payload.data), state.eq(_State.LOCAL_WRITE)]
                with m.Elif(request.valid):
                    m.d.sync += state.eq(_State.FETCH)
                    if self.has_local:
                        with m.If(payload.address == Register.LOCAL_DATA):
                            m.d.sync += state.eq(_State.LOCAL_READ)
            with m.Case(_State.FETCH):
                counted = (address == Register.CYCLES) | (address == Register.COUNTER)
                with m.If(~counted | self.settled):
                    m.d.sync += state.eq(_State.SETTLE)
            with m.Case(_State.SETTLE):
                m.d.sync += state.eq(_State.SELECT)
            with m.Case(_State.SELECT):
                m.d.sync += [result.eq(0), state.eq(_State.RESPOND)]
                with m.If(~beyond), m.Switch(address):
                    for register, value in readable.items():
                        with m.Case(register):
                            m.d.sync += result.eq(value)
            with m.Case(_State.RESPOND), m.If(response.ready):
                m.d.sync += state.eq(_State.IDLE)
            if self.has_local:
                self._local(m, state, local, result)
        return m

    def _local(self, m: Module, state: Signal, local: Signal, result: Signal) -> None:
        """The states of an access to the 32 bits of local memory at byte address `local`."""
        word_bytes = self.config.word_bytes
        byte_bits = word_bytes.bit_length() - 1
        word_address, place = local[byte_bits:], local[2:byte_bits]
        write, read = self.write.request, self.read
        left = Signal(range(local_read_latency(self.config)))
        m.d.comb += [
            write.valid.eq(state == _State.LOCAL_WRITE),
            write.payload.address.eq(word_address),
            write.payload.data.eq(result.replicate(word_bytes // 4)),
            write.payload.mask.eq(Const(15, word_bytes) << (place << 2)),
            read.request.valid.eq(state == _State.LOCAL_READ),
            read.request.payload.eq(word_address),
        ]
        with m.Case(_State.LOCAL_WRITE), m.If(write.ready):
            m.d.sync += [local.eq(local + 4), state.eq(_State.IDLE)]
        with m.Case(_State.LOCAL_READ), m.If(read.request.ready):
            m.d.sync += [left.eq(local_read_latency(self.config) - 1), state.eq(_State.LOCAL_WAIT)]
        with m.Case(_State.LOCAL_WAIT):
            m.d.sync += result.eq(read.response.word_select(place, 32))
            # Counted, for a flush may take the response away.
            m.d.sync += left.eq(left - 1)
            with m.If(left == 0):
                m.d.sync += [local.eq(local + 4), state.eq(_State.RESPOND)]
