"""Local memory: storage and the arbiter in front of it."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.interfaces import LocalRead, LocalWrite, local_read_latency, pipelined
from gateformer.hw.primitives.ram import WordRam
from gateformer.hw.primitives.selection import select_one
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine

READERS: dict[str, Engine] = {
    "read_load_a": Engine.LOAD_A,
    "read_epilogue": Engine.EPILOGUE,
    "read_dma": Engine.DMA,
    "read_load_p": Engine.LOAD_P,
    "read_vector": Engine.VECTOR,
    "read_load_b": Engine.LOAD_B,
    "read_host": Engine.DMA,
}
"""The read ports, most urgent first, and the engine that an error of each is put down to. The first
two that always ask leave nothing to others; DMA asks for a word as often as external memory moves
one, which is seldom, but must not wait: external memory would stand still."""
WRITERS: dict[str, Engine] = {
    "write_epilogue": Engine.EPILOGUE,
    "write_dma": Engine.DMA,
    "write_vector": Engine.VECTOR,
    "write_host": Engine.DMA,
}
"""The write ports, most urgent first."""


def error_latency(config: AcceleratorConfig) -> int:
    """Cycles from an access beyond local memory to its report."""
    return 4 if pipelined(config) else 2


class LocalMemory(Component):
    """One flat memory of `config.local_words` words for all engines.

    Ports: a LocalRead for each of READERS and a LocalWrite for each of WRITERS, both seen from the
    client and flipped here. Every `ready` is a register, 1 for at most one reader and one writer
    (memory_ports == 2), or for one of all (memory_ports == 1, reads and writes in turns when both
    ask). It becomes 1 for the most urgent port whose valid is 1 and whose ready is 0; when there is
    none, it stays where a request was just taken. So an idle memory takes a request in the cycle
    after its valid, one client has a transfer a cycle, and two that always ask have one in turns.

    Timing: the response comes exactly local_read_latency(config) cycles after the request was
    taken. A write is seen by every read taken in a later cycle; for a read taken in the same cycle
    the bytes written are undefined.

    stall: bit 0 keeps back all reads of this cycle, bit 1 all writes (tie to 0 in hardware).
    error: 1 for one cycle, error_latency(config) cycles after a request beyond the memory was
    taken; `error_client` is the number of its Engine in that cycle. Such a write is dropped, such a
    read answered with any word.
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
        readers: list[Any] = [getattr(self, name).request for name in READERS]
        writers: list[Any] = [getattr(self, name).request for name in WRITERS]
        ram = WordRam(
            depth=config.local_words,
            width_bytes=config.word_bytes,
            ports=config.memory_ports,
            wide=config.memory_ports == 2,
            address_bits=16,
            family=config.family,
        )
        m.submodules.ram = ram

        reads, writes = _Arbiter(m, readers, "read"), _Arbiter(m, writers, "write")
        if config.memory_ports == 2:
            reads.grant(m, new=Const(1, 1), again=~reads.asking)
            writes.grant(m, new=Const(1, 1), again=~writes.asking)
        else:
            # Where both ask, the turn goes to the kind that is not being served.
            reading = reads.ready.any()
            again = ~reads.asking & ~writes.asking
            reads.grant(m, new=~writes.asking | ~reading, again=again)
            writes.grant(m, new=~reads.asking | reading, again=again)
        for arbiter, stalled in ((reads, self.stall[0]), (writes, self.stall[1])):
            for i, port in enumerate(arbiter.ports):
                m.d.comb += port.ready.eq(arbiter.ready[i] & ~stalled)

        def select(arbiters: Sequence["_Arbiter"], words: list[Value], name: str) -> Value:
            taken = [bit for arbiter in arbiters for bit in arbiter.taken]
            return select_one(m, taken, words, name=name, family=config.family)

        read_addresses = [port.payload for port in readers]
        write_addresses = [port.payload.address for port in writers]
        if config.memory_ports == 2:
            read_address = select([reads], read_addresses, "read_address")
            write_address = select([writes], write_addresses, "write_address")
            m.d.comb += [ram.read_address.eq(read_address), ram.write_address.eq(write_address)]
        else:
            addresses = [*read_addresses, *write_addresses]
            read_address = write_address = select([reads, writes], addresses, "address")
            m.d.comb += ram.address.eq(read_address)
        mask = select_one(
            m,
            writes.taken,
            [port.payload.mask for port in writers],
            name="write_mask",
            blank=True,
            family=config.family,
        )
        # Gated, not chosen: the epilogue and DMA may give the same bytes in all places of a word,
        # whose gates then are shared.
        data = select_one(
            m,
            writes.taken,
            [port.payload.data for port in writers],
            name="write_data",
            blank=True,
            family=config.family,
        )
        m.d.comb += [ram.write_data.eq(data), ram.write_mask.eq(mask)]

        # Responses.
        read_clients = [_register(m, bit, f"reader_{i}") for i, bit in enumerate(reads.taken)]
        arriving = read_clients
        for stage in range(1, local_read_latency(config)):
            arriving = [_register(m, bit, f"reader_{i}_{stage}") for i, bit in enumerate(arriving)]
        for i, name in enumerate(READERS):
            port = getattr(self, name)
            m.d.comb += [port.response.eq(ram.read_data), port.response_valid.eq(arriving[i])]

        # Errors.
        write_clients = [_register(m, bit, f"writer_{i}") for i, bit in enumerate(writes.taken)]
        read_error, read_client = self._error(m, "read", read_clients, READERS, read_address)
        write_error, write_client = self._error(m, "write", write_clients, WRITERS, write_address)
        m.d.sync += [
            self.error.eq(read_error | write_error),
            self.error_client.eq(Mux(read_error, read_client, write_client)),
        ]
        return m

    def _error(
        self,
        m: Module,
        kind: str,
        clients: Sequence[Value],
        engines: dict[str, Engine],
        address: Value,
    ) -> tuple[Value, Value]:
        """Whether a request, of the cycle before or of two earlier, is beyond the memory; whose."""
        if not pipelined(self.config):
            wrong = Cat(clients).any() & beyond(address, self.config.local_words)
            return wrong, _chosen(clients, list(engines.values()))
        late_address = Signal(len(address), name=f"late_{kind}_address", reset_less=True)
        late_wrong = Signal(name=f"{kind}_error")
        client = Signal(range(len(Engine)), name=f"{kind}_client", reset_less=True)
        late = [_register(m, bit, f"late_{kind}_client_{i}") for i, bit in enumerate(clients)]
        m.d.sync += [
            late_address.eq(address),
            late_wrong.eq(Cat(late).any() & beyond(late_address, self.config.local_words)),
            client.eq(_chosen(late, list(engines.values()))),
        ]
        return late_wrong, client


class _Arbiter:
    """The readies of the ports of one kind, and which of them is taken.

    asking: a port has a request that is not being served.
    """

    def __init__(self, m: Module, ports: Sequence[Any], name: str) -> None:
        self.ports = ports
        self.ready = Signal(len(ports), name=f"{name}_ready")
        self.waiting = Signal(len(ports), name=f"{name}_waiting")
        self.asking = Signal(name=f"{name}_asking")
        self.taken = [port.valid & port.ready for port in ports]
        m.d.comb += [
            self.waiting.eq(Cat(port.valid for port in ports) & ~self.ready),
            self.asking.eq(self.waiting.any()),
        ]

    def grant(self, m: Module, *, new: Value, again: Value) -> None:
        """Chooses who is ready in the next cycle: the first that waits, where `new` allows it, or
        whoever is ready now and has a request, where `again` allows it."""
        for i, port in enumerate(self.ports):
            first = new & ~self.waiting[:i].any()
            m.d.sync += self.ready[i].eq(port.valid & Mux(self.ready[i], again, first))


def beyond(address: Value, count: int) -> Value:
    """address >= count, without the adder that a comparison would get."""
    if count >= 1 << len(address):
        return Const(0, 1)
    result: Value = Const(1, 1)
    for i in range(len(address)):
        result = address[i] & result if count >> i & 1 else address[i] | result
    return result


def _chosen(clients: Sequence[Value], numbers: list[Engine]) -> Value:
    """The number whose bit of `clients`, of which at most one is 1, is set."""
    return reduce(or_, (Mux(clients[i], Const(n, 3), 0) for i, n in enumerate(numbers)))


def _register(m: Module, value: Value, name: str) -> Signal:
    register = Signal(name=name)
    m.d.sync += register.eq(value)
    return register
