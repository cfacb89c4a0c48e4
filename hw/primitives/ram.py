"""A RAM of words with byte enables and a registered output, on each family's own RAM blocks."""

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Literal

from amaranth import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

_EBR_BITS = 16384
_EBR_DEPTHS = (16384, 8192, 4096, 2048, 1024, 512)
_SPRAM_DEPTH = 16384
_SPRAM_WORTHWHILE = 2048


class WordRam(Component):
    """`depth` words of `width_bytes` bytes. Reads take LATENCY cycles, one a cycle.

    ports=2: a write port (`write_address`, `write_data`, `write_mask`, a bit for each byte; mask 0
    writes nothing) and a read port (`read_address`, `read_data`). The same address is never read
    and written in one cycle: the caller sees to it, the blocks have no collision logic.
    ordered (two ports only): any addresses at any time; a read sees every write of an earlier cycle
    and none of its own. The write port is registered, for large memories that spread over the chip.
    ports=1: `address` takes the place of both addresses; a cycle whose mask is not 0 writes, and
    what it reads is undefined.

    Contents are undefined at first; nothing has a reset. family "ecp5" with two ports instantiates
    DP16KD and PDPW16KD with their output registers, "ice40" with one port SB_SPRAM256KA from 2048
    words on; everything else is inferred. Raises ValueError for a count of ports other than 1 or 2.
    """

    LATENCY = 2

    address: Signal
    write_address: Signal
    write_data: Signal
    write_mask: Signal
    read_address: Signal
    read_data: Signal

    def __init__(
        self,
        *,
        depth: int,
        width_bytes: int,
        ports: int = 2,
        ordered: bool = False,
        family: Literal["generic", "ecp5", "ice40"] = "generic",
    ) -> None:
        if ports not in (1, 2):
            raise ValueError(f"a RAM has 1 or 2 ports, not {ports}")
        self.depth = depth
        self.width_bytes = width_bytes
        self.ports = ports
        self.ordered = ordered
        self.family = family
        bits = ceil_log2(depth)
        addresses = ("address",) if ports == 1 else ("write_address", "read_address")
        super().__init__(
            {
                **{name: In(bits) for name in addresses},
                "write_data": In(8 * width_bytes),
                "write_mask": In(width_bytes),
                "read_data": Out(8 * width_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        if self.family == "ecp5" and self.ports == 2:
            return self._ebr()
        if self.family == "ice40" and self.ports == 1 and self.depth >= _SPRAM_WORTHWHILE:
            return self._spram()
        return self._inferred()

    def _inferred(self) -> Module:
        m = Module()
        m.submodules.storage = storage = Memory(
            shape=8 * self.width_bytes, depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        write = storage.write_port(granularity=8)
        read = storage.read_port()
        output = Signal(8 * self.width_bytes, reset_less=True)
        m.d.sync += output.eq(read.data)
        if self.ports == 1:
            m.d.comb += [
                write.addr.eq(self.address),
                write.data.eq(self.write_data),
                write.en.eq(self.write_mask),
                read.addr.eq(self.address),
                read.en.eq(~self.write_mask.any()),
                self.read_data.eq(output),
            ]
            return m
        port = self._write_port(m, [Const(1, 1)])
        m.d.comb += [
            write.addr.eq(port.address),
            write.data.eq(port.data),
            write.en.eq(port.masks[0]),
            read.addr.eq(self.read_address),
            read.en.eq(1),
            self.read_data.eq(self._read_port(m, port, [Const(1, 1)], [output])),
        ]
        return m

    def _ebr(self) -> Module:
        """Chunks from the deepest shape on: deep and narrow blocks need no multiplexer."""
        m = Module()
        chunks = chunk_depths(self.depth)
        bases = [sum(chunks[:number]) for number in range(len(chunks))]
        lows = [ceil_log2(size) for size in chunks]
        tags = [base >> low for base, low in zip(bases, lows, strict=True)]
        port = self._write_port(
            m, [self.write_address[low:] == tag for low, tag in zip(lows, tags, strict=True)]
        )
        outputs = []
        for number, low in enumerate(lows):
            width = _EBR_BITS >> low
            write_address = Signal(low, name=f"write_address_{number}")
            read_address = Signal(low, name=f"read_address_{number}")
            output = Signal(8 * self.width_bytes, name=f"output_{number}")
            m.d.comb += [write_address.eq(port.address), read_address.eq(self.read_address)]
            for bit in range(0, 8 * self.width_bytes, width):
                make = _pdpw16kd if width == 32 else _dp16kd
                m.submodules[f"block_{number}_{bit}"] = make(
                    write_address=write_address,
                    write_data=port.data[bit : bit + width],
                    write_mask=port.masks[number][bit // 8 : (bit + width + 7) // 8],
                    read_address=read_address,
                    read_data=output[bit : bit + width],
                )
            outputs.append(output)
        hits = [self.read_address[low:] == tag for low, tag in zip(lows, tags, strict=True)]
        m.d.comb += self.read_data.eq(self._read_port(m, port, hits, outputs))
        return m

    def _write_port(self, m: Module, hits: list[Value]) -> "_WritePort":
        """The write port in front of the parts, of which the one whose hit is 1 is written."""
        masks = [Mux(hit, self.write_mask, 0) for hit in hits]
        port = _WritePort(
            Signal.like(self.write_address, name="part_address", reset_less=True),
            Signal.like(self.write_data, name="part_data", reset_less=True),
            [Signal(self.width_bytes, name=f"part_mask_{i}") for i in range(len(hits))],
        )
        domain = m.d.sync if self.ordered else m.d.comb
        domain += [
            port.address.eq(self.write_address),
            port.data.eq(self.write_data),
            *(signal.eq(mask) for signal, mask in zip(port.masks, masks, strict=True)),
        ]
        return port

    def _read_port(
        self, m: Module, port: "_WritePort", hits: list[Value], outputs: list[Signal]
    ) -> Value:
        """The output of the part whose hit was 1, LATENCY cycles ago.

        ordered: a byte that the registered write port writes in the cycle in which the blocks read
        it comes from there. Every source of a byte is 0 or blanked unless it is chosen, so that
        three parts and the written byte take two LUTs a bit.
        """
        if not self.ordered:
            return _delayed_choice(m, hits, outputs)
        # A digit of two address bits each: the comparison is spread over two cycles.
        digits = range(0, len(self.read_address), 2)
        equal = Signal(len(digits), reset_less=True)
        asked = Signal(len(hits), reset_less=True)
        mask = Signal(self.width_bytes)
        data = Signal.like(self.write_data, name="written", reset_less=True)
        m.d.sync += [
            equal.eq(Cat(self.read_address[i : i + 2] == port.address[i : i + 2] for i in digits)),
            asked.eq(Cat(hits)),
            mask.eq(reduce(or_, port.masks)),
            data.eq(port.data),
        ]
        result = []
        for byte in range(self.width_bytes):
            bits = slice(8 * byte, 8 * byte + 8)
            written = Signal(name=f"written_{byte}")
            forwarded = Signal(8, name=f"forwarded_{byte}", reset_less=True)
            chosen = Signal(len(hits), name=f"chosen_{byte}", reset_less=True)
            m.d.comb += written.eq(equal.all() & mask[byte])
            m.d.sync += [
                forwarded.eq(Mux(written, data[bits], 0)),
                chosen.eq(Mux(written, 0, asked)),
            ]
            parts = [Mux(chosen[i], output[bits], 0) for i, output in enumerate(outputs)]
            result.append(reduce(or_, parts, forwarded))
        return Cat(result)

    def _spram(self) -> Module:
        m = Module()
        outputs = []
        hits = []
        low = ceil_log2(_SPRAM_DEPTH)
        address = Signal(low)
        m.d.comb += address.eq(self.address[:low])
        for number in range(-(-self.depth // _SPRAM_DEPTH)):
            hit = self.address[low:] == number
            raw = Signal(8 * self.width_bytes, name=f"raw_{number}")
            output = Signal(8 * self.width_bytes, name=f"output_{number}", reset_less=True)
            for byte in range(0, self.width_bytes, 2):
                mask = self.write_mask[byte : byte + 2]
                data = self.write_data[8 * byte : 8 * byte + 16]
                word = Signal(16, name=f"word_{number}_{byte}")
                m.submodules[f"block_{number}_{byte}"] = Instance(
                    "SB_SPRAM256KA",
                    i_ADDRESS=address,
                    i_DATAIN=Cat(data, Const(0, 16 - len(data))),
                    i_MASKWREN=Cat(mask[i].replicate(2) for i in range(len(mask))),
                    i_WREN=self.write_mask.any(),
                    i_CHIPSELECT=hit,
                    i_CLOCK=ClockSignal(),
                    i_STANDBY=Const(0, 1),
                    i_SLEEP=Const(0, 1),
                    i_POWEROFF=Const(1, 1),
                    o_DATAOUT=word,
                )
                m.d.comb += raw[8 * byte : 8 * byte + 16].eq(word)
            m.d.sync += output.eq(raw)
            hits.append(hit)
            outputs.append(output)
        m.d.comb += self.read_data.eq(_delayed_choice(m, hits, outputs))
        return m


@dataclass(frozen=True)
class _WritePort:
    """What the blocks write in a cycle: one mask for each part of the memory."""

    address: Signal
    data: Signal
    masks: list[Signal]


def chunk_depths(depth: int) -> list[int]:
    """The depths of the block shapes that a RAM of `depth` words is put together from."""
    smallest = _EBR_DEPTHS[-1]
    left = -(-depth // smallest) * smallest
    chunks = []
    while left:
        chunks.append(next(size for size in _EBR_DEPTHS if size <= left))
        left -= chunks[-1]
    return chunks


def _delayed_choice(m: Module, hits: list[Value], outputs: list[Signal]) -> Value:
    """The output of the part whose hit was 1 LATENCY cycles ago: the only logic behind the RAM."""
    if len(outputs) == 1:
        return outputs[0]
    number = Signal(range(len(outputs)))
    for i, hit in enumerate(hits):
        with m.If(hit):
            m.d.comb += number.eq(i)
    asked = Signal.like(number, reset_less=True)
    chosen = Signal.like(number, reset_less=True)
    m.d.sync += [asked.eq(number), chosen.eq(asked)]
    return Array(outputs)[chosen]


def _dp16kd(
    *,
    write_address: Value,
    write_data: Value,
    write_mask: Value,
    read_address: Value,
    read_data: Value,
) -> Instance:
    """Port A writes, port B reads through the output register.

    The narrow shapes leave the low address bits out. 16 bits are two bytes of 9 whose enables
    take the place of the lowest address bits.
    """
    unused = Const(0, 14 - len(write_address))
    addresses = {"A": Cat(unused, write_address), "B": Cat(unused, read_address)}
    lanes = list(range(len(write_data)))
    if len(write_mask) == 2:
        addresses["A"] = Cat(write_mask, unused[2:], write_address)
        lanes = [*range(8), *range(9, 17)]
    ports: dict[str, object] = {}
    for port, address in addresses.items():
        ports |= {f"i_AD{port}{i}": address[i] for i in range(14)}
        ports |= {f"i_CS{port}{i}": Const(0, 1) for i in range(3)}
        ports |= {f"i_CLK{port}": ClockSignal(), f"i_RST{port}": Const(0, 1)}
        ports |= {f"i_CE{port}": Const(1, 1), f"i_OCE{port}": Const(1, 1)}
        ports |= {f"p_DATA_WIDTH_{port}": {8: 9, 16: 18}.get(len(write_data), len(write_data))}
        ports |= {f"p_CSDECODE_{port}": "0b000", f"p_WRITEMODE_{port}": "NORMAL"}
        ports |= {f"p_CLK{port}MUX": f"CLK{port}"}
    ports |= {f"i_DIA{lane}": write_data[i] for i, lane in enumerate(lanes)}
    ports |= {f"o_DOB{lane}": read_data[i] for i, lane in enumerate(lanes)}
    return Instance(
        "DP16KD",
        p_REGMODE_A="NOREG",
        p_REGMODE_B="OUTREG",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        p_GSR="DISABLED",
        i_WEA=write_mask.any(),
        i_WEB=Const(0, 1),
        **ports,
    )


def _pdpw16kd(
    *,
    write_address: Value,
    write_data: Value,
    write_mask: Value,
    read_address: Value,
    read_data: Value,
) -> Instance:
    """512 words of four bytes of 9, or fewer; reads through the output register."""
    lanes = [bit + bit // 8 for bit in range(len(write_data))]
    # The read address counts bits, as DP16KD's do.
    read = Cat(Const(0, 14 - len(read_address)), read_address)
    ports: dict[str, object] = {}
    ports |= {f"i_ADW{i}": write_address[i] for i in range(9)}
    ports |= {f"i_ADR{i}": read[i] for i in range(14)}
    ports |= {f"i_BE{i}": write_mask[i] if i < len(write_mask) else Const(0, 1) for i in range(4)}
    ports |= {f"i_DI{lane}": write_data[i] for i, lane in enumerate(lanes)}
    ports |= {f"o_DO{lane}": read_data[i] for i, lane in enumerate(lanes)}
    for port in "WR":
        ports |= {f"i_CS{port}{i}": Const(0, 1) for i in range(3)}
        ports |= {f"i_CLK{port}": ClockSignal(), f"p_CLK{port}MUX": f"CLK{port}"}
        ports |= {f"p_DATA_WIDTH_{port}": 36, f"p_CSDECODE_{port}": "0b000"}
    return Instance(
        "PDPW16KD",
        p_REGMODE="OUTREG",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        p_GSR="DISABLED",
        i_CEW=write_mask.any(),
        i_CER=Const(1, 1),
        i_OCER=Const(1, 1),
        i_RST=Const(0, 1),
        **ports,
    )
