"""Local memory: storage and the arbiter in front of it."""

from functools import reduce
from operator import or_

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LOCAL_READ_LATENCY, LocalRead, LocalWrite
from gateformer.hw.primitives.ram import WordRam
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine

READERS: dict[str, Engine] = {
    "read_load_a": Engine.LOAD_A,
    "read_epilogue": Engine.EPILOGUE,
    "read_load_p": Engine.LOAD_P,
    "read_vector": Engine.VECTOR,
    "read_load_b": Engine.LOAD_B,
    "read_dma": Engine.DMA,
    "read_host": Engine.DMA,
}
"""The read ports, most urgent first, and the engine that an error of each is put down to."""
WRITERS: dict[str, Engine] = {
    "write_epilogue": Engine.EPILOGUE,
    "write_vector": Engine.VECTOR,
    "write_dma": Engine.DMA,
    "write_host": Engine.DMA,
}
"""The write ports, most urgent first."""


class LocalMemory(Component):
    """One flat memory of `config.local_words` words for all engines.

    Ports: a LocalRead for each of READERS and a LocalWrite for each of WRITERS, both seen from the
    client and flipped here. A cycle takes the most urgent read and the most urgent write
    (memory_ports == 2), or one of them, in turns when both ask (memory_ports == 1). A port's
    `ready` depends on the valids of other ports, never on its own.

    Timing: the response comes exactly LOCAL_READ_LATENCY cycles after the request was taken. A
    write is seen by every read taken in a later cycle, not by one taken in the same cycle.

    stall: bit 0 keeps back all reads of this cycle, bit 1 all writes (tie to 0 in hardware).
    error: 1 for one cycle when a request beyond the memory was taken; `error_client` is the number
    of its Engine in that cycle. Such a write is dropped, such a read answered with any word.
    """

    stall: Signal
    error: Signal
    error_client: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                **{name: In(LocalRead(config)) for name in READERS},
                **{name: In(LocalWrite(config)) for name in WRITERS},
                "stall": In(2),
                "error": Out(1),
                "error_client": Out(range(len(Engine))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.ram = ram = WordRam(
            depth=config.local_words,
            width_bytes=config.word_bytes,
            ports=config.memory_ports,
            ordered=config.memory_ports == 2,
            family=config.family,
        )
        readers = [getattr(self, name) for name in READERS]
        writers = [getattr(self, name) for name in WRITERS]
        read_valids = Cat(port.request.valid for port in readers)
        write_valids = Cat(port.request.valid for port in writers)

        # Who is taken in this cycle.
        read_open = Signal()
        write_open = Signal()
        reads = Signal(len(readers))
        writes = Signal(len(writers))
        for ports, valids, is_open, grants in (
            (readers, read_valids, read_open, reads),
            (writers, write_valids, write_open, writes),
        ):
            for i, port in enumerate(ports):
                m.d.comb += [
                    port.request.ready.eq(is_open & ~valids[:i].any()),
                    grants[i].eq(port.request.valid & port.request.ready),
                ]

        # The winners, registered in front of the RAM.
        read_clients = Signal(len(readers))
        write_clients = Signal(len(writers))
        read_address = Signal(16, reset_less=True)
        write_address = Signal(16, reset_less=True)
        m.d.sync += [
            read_clients.eq(reads),
            read_address.eq(_first(m, read_valids, [port.request.payload for port in readers])),
        ]
        payloads = [port.request.payload for port in writers]
        m.d.sync += [
            write_clients.eq(writes),
            write_address.eq(_first(m, write_valids, [p.address for p in payloads])),
        ]
        # A register for each writer, zero unless it won, and an OR behind them: one LUT a bit, half
        # of what a multiplexer takes.
        words = []
        for i, (name, payload) in enumerate(zip(WRITERS, payloads, strict=True)):
            word = Signal(9 * config.word_bytes, name=f"{name}_word")
            m.d.sync += word.eq(Mux(writes[i], Cat(payload.data, payload.mask), 0))
            words.append(word)
        write_word = reduce(or_, words)
        write_data = write_word[: 8 * config.word_bytes]
        write_mask = write_word[8 * config.word_bytes :]

        read_beyond = beyond(read_address, config.local_words)
        write_beyond = beyond(write_address, config.local_words)
        m.d.comb += [
            ram.write_data.eq(write_data),
            ram.write_mask.eq(Mux(write_beyond, 0, write_mask)),
        ]
        if config.memory_ports == 2:
            m.d.comb += [
                read_open.eq(~self.stall[0]),
                write_open.eq(~self.stall[1]),
                ram.read_address.eq(read_address),
                ram.write_address.eq(write_address),
            ]
        else:
            write_turn = Signal()
            write_asked = write_valids.any() & ~self.stall[1]
            read_asked = read_valids.any() & ~self.stall[0]
            m.d.comb += [
                read_open.eq(~self.stall[0] & ~(write_asked & write_turn)),
                write_open.eq(~self.stall[1] & ~(read_asked & ~write_turn)),
                ram.address.eq(Mux(write_clients.any(), write_address, read_address)),
            ]
            with m.If(reads.any()):
                m.d.sync += write_turn.eq(1)
            with m.Elif(writes.any()):
                m.d.sync += write_turn.eq(0)

        # Responses.
        arriving = read_clients
        for stage in range(1, LOCAL_READ_LATENCY):
            delayed = Signal(len(readers), name=f"read_clients_{stage}")
            m.d.sync += delayed.eq(arriving)
            arriving = delayed
        for i, port in enumerate(readers):
            m.d.comb += [port.response.eq(ram.read_data), port.response_valid.eq(arriving[i])]

        # Errors.
        read_error = read_clients.any() & read_beyond
        write_error = write_clients.any() & write_beyond
        m.d.sync += [
            self.error.eq(read_error | write_error),
            self.error_client.eq(
                Mux(
                    read_error,
                    _chosen(read_clients, list(READERS.values())),
                    _chosen(write_clients, list(WRITERS.values())),
                )
            ),
        ]
        return m


def beyond(address: Value, count: int) -> Value:
    """address >= count, without the adder that a comparison would get."""
    if count >= 1 << len(address):
        return Const(0, 1)
    result: Value = Const(1, 1)
    for i in range(len(address)):
        result = address[i] & result if count >> i & 1 else address[i] | result
    return result


def _first(m: Module, valids: Value, payloads: list[Value]) -> Value:
    """The payload of the lowest valid; any if none is."""
    number = Signal(range(len(payloads)))
    for i in reversed(range(len(payloads))):
        with m.If(valids[i]):
            m.d.comb += number.eq(i)
    return Array(payloads)[number]


def _chosen(clients: Value, numbers: list[Engine]) -> Value:
    """The number whose bit of `clients`, of which at most one is 1, is set."""
    return reduce(or_, (Mux(clients[i], Const(n, 3), 0) for i, n in enumerate(numbers)))
