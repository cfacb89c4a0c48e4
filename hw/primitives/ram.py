"""A RAM of words with byte enables, on each family's own RAM blocks."""

from functools import reduce
from operator import or_
from typing import Any, Literal

from amaranth import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from gateformer.hw.primitives.ecp5_blocks import EBR_BITS, chunk_depths, dp16kd, pdpw16kd

_SPRAM_DEPTH = 16384
_SPRAM_WORTHWHILE = 2048
_LUTS_WORTHWHILE = 128


class WordRam(Component):
    """`depth` words of `width_bytes` bytes. A read takes `latency` cycles; a new one every cycle.

    ports=2: a write port (`write_address`, `write_data`, `write_mask`, a bit for each byte; mask 0
    writes nothing) and a read port (`read_address`, `read_data`). The read that begins in the cycle
    of a write sees what was there before in the bytes not written and anything in the others; a
    later one sees the write.
    registered (two ports only): the word comes from a register, behind the blocks or inside them.
    blanked: registered, with an input `blank` that makes 0 of the word in that register.
    stallable (two ports only): reads are on their way only while `read_enable` is 1.
    wide (two ports only): registered, for memories that spread over the chip. More registers stand
    in front of the blocks, behind them, and behind the choice between them, so that no path from or
    to a block holds logic.
    luts: for RAMs whose words take many blocks. Where the family has RAM of LUTs, up to 128 words
    with two ports are made of it, of which each block would stay empty by three quarters.
    ports=1: `address` takes the place of both addresses; a cycle whose mask is not 0 writes, and
    what it reads is undefined. The word comes straight from the blocks.

    A write to an address of `depth` or more changes no word below, a read there gives any word.
    Contents are undefined at first; nothing has a reset. family "ecp5" with two ports instantiates
    DP16KD and PDPW16KD with their output registers, "ice40" with one port SB_SPRAM256KA from 2048
    words on; everything else is inferred. Addresses have as many bits as `depth` wants, or
    `address_bits` where these are more. Raises ValueError for a count of ports other than 1 or 2.
    """

    address: Signal
    write_address: Signal
    write_data: Signal
    write_mask: Signal
    read_address: Signal
    read_enable: Signal
    read_data: Signal
    blank: Signal

    def __init__(
        self,
        *,
        depth: int,
        width_bytes: int,
        ports: int = 2,
        registered: bool = True,
        blanked: bool = False,
        wide: bool = False,
        stallable: bool = False,
        luts: bool = False,
        address_bits: int | None = None,
        family: Literal["generic", "ecp5", "ice40"] = "generic",
    ) -> None:
        if ports not in (1, 2):
            raise ValueError(f"a RAM has 1 or 2 ports, not {ports}")
        self.depth = depth
        self.width_bytes = width_bytes
        self.ports = ports
        self.registered = registered or wide or blanked
        self.blanked = blanked
        self.wide = wide
        self.stallable = stallable
        self.luts = luts and family == "ecp5" and ports == 2 and depth <= _LUTS_WORTHWHILE
        self.family = family
        bits = max(address_bits or 0, ceil_log2(depth))
        addresses = ("address",) if ports == 1 else ("write_address", "read_address")
        super().__init__(
            {
                **{name: In(bits) for name in addresses},
                **({"blank": In(1)} if blanked else {}),
                **({"read_enable": In(1)} if stallable else {}),
                "write_data": In(8 * width_bytes),
                "write_mask": In(width_bytes),
                "read_data": Out(8 * width_bytes),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from an address to its word."""
        if self.ports == 1:
            return 1
        return 5 if self.wide else 1 + self.registered

    @property
    def _enable(self) -> Value:
        return self.read_enable if self.stallable else Const(1, 1)

    def elaborate(self, platform: object) -> Module:
        if self.ports == 1:
            spram = self.family == "ice40" and self.depth >= _SPRAM_WORTHWHILE
            return self._spram() if spram else self._inferred_one()
        return self._two()

    def _inferred_one(self) -> Module:
        m = Module()
        m.submodules.storage = storage = self._storage()
        write = storage.write_port(granularity=8)
        read = storage.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.write_data),
            write.en.eq(Mux(self.address[len(write.addr) :] == 0, self.write_mask, 0)),
            read.addr.eq(self.address),
            read.en.eq(~self.write_mask.any()),
            self.read_data.eq(read.data),
        ]
        return m

    def _two(self) -> Module:
        """Parts of one block shape each; the others' output is blanked behind a wide memory."""
        m = Module()
        ecp5 = self.family == "ecp5" and not self.luts
        depths = chunk_depths(self.depth) if ecp5 else [1 << ceil_log2(self.depth)]
        lows = [ceil_log2(size) for size in depths]
        tags = [sum(depths[:i]) >> low for i, low in enumerate(lows)]
        written = [self.write_address[low:] == tag for low, tag in zip(lows, tags, strict=True)]
        masks: list[Any] = [Mux(hit, self.write_mask, 0) for hit in written]
        address: Value = self.write_address
        data: Value = self.write_data
        read_address: Value = self.read_address
        if self.wide:
            address, data, read_address, *masks = (
                _register(m, value, name)
                for value, name in (
                    (address, "block_write_address"),
                    (data, "block_data"),
                    (read_address, "block_read_address"),
                    *((mask, f"block_mask_{i}") for i, mask in enumerate(masks)),
                )
            )
        asked = [read_address[low:] == tag for low, tag in zip(lows, tags, strict=True)]
        outputs = []
        for i, (low, mask) in enumerate(zip(lows, masks, strict=True)):
            output = Signal(8 * self.width_bytes, name=f"output_{i}")
            part = self._blocks if ecp5 else self._inferred_two
            write_place = Signal(low, name=f"write_place_{i}")
            read_place = Signal(low, name=f"read_place_{i}")
            m.d.comb += [write_place.eq(address), read_place.eq(read_address)]
            part(m, i, write_place, data, mask, read_place, output)
            outputs.append(output)
        # Who was asked, when its output is there.
        late: list[list[Value]] = [asked]
        for stage in range(1 + self.registered):
            late.append([_register(m, hit, f"asked_{stage}_{i}") for i, hit in enumerate(late[-1])])
        if len(outputs) == 1:
            if self.wide:
                outputs = [_register(m, _register(m, outputs[0], "arrived"), "word")]
            m.d.comb += self.read_data.eq(outputs[0])
        elif self.wide:
            blanked = [
                _register(m, Mux(hit, output, 0), f"arrived_{i}")
                for i, (hit, output) in enumerate(zip(late[-1], outputs, strict=True))
            ]
            m.d.comb += self.read_data.eq(_register(m, reduce(or_, blanked), "word"))
        else:
            parts = (Mux(h, o, 0) for h, o in zip(late[-1], outputs, strict=True))
            m.d.comb += self.read_data.eq(reduce(or_, parts))
        return m

    def _inferred_two(
        self,
        m: Module,
        number: int,
        write_address: Value,
        write_data: Value,
        write_mask: Value,
        read_address: Value,
        read_data: Signal,
    ) -> None:
        m.submodules.storage = storage = self._storage()
        write = storage.write_port(granularity=8)
        read = storage.read_port()
        m.d.comb += [
            write.addr.eq(write_address),
            write.data.eq(write_data),
            write.en.eq(write_mask),
            read.addr.eq(read_address),
            read.en.eq(self._enable),
        ]
        if not self.registered:
            m.d.comb += read_data.eq(read.data)
            return
        output = Signal.like(read_data, name="output", reset_less=True)
        with m.If(self._enable):
            m.d.sync += output.eq(read.data)
        m.d.comb += read_data.eq(output)
        if self.blanked:
            with m.If(self.blank):
                m.d.sync += output.eq(0)

    def _blocks(
        self,
        m: Module,
        number: int,
        write_address: Value,
        write_data: Value,
        write_mask: Value,
        read_address: Value,
        read_data: Signal,
    ) -> None:
        width = EBR_BITS >> len(read_address)
        for bit in range(0, 8 * self.width_bytes, width):
            make = pdpw16kd if width == 32 else dp16kd
            m.submodules[f"block_{number}_{bit}"] = make(
                write_address=write_address,
                write_data=write_data[bit : bit + width],
                write_mask=write_mask[bit // 8 : (bit + width + 7) // 8],
                read_address=read_address,
                read_data=read_data[bit : bit + width],
                read_enable=self._enable,
                registered=self.registered,
                blank=self.blank if self.blanked else Const(0, 1),
            )

    def _spram(self) -> Module:
        m = Module()
        outputs = []
        hits = []
        low = ceil_log2(_SPRAM_DEPTH)
        address = Signal(low)
        m.d.comb += address.eq(self.address[:low])
        for number in range(-(-self.depth // _SPRAM_DEPTH)):
            hit = self.address[low:] == number
            output = Signal(8 * self.width_bytes, name=f"output_{number}")
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
                m.d.comb += output[8 * byte : 8 * byte + 16].eq(word)
            hits.append(hit)
            outputs.append(output)
        block = Signal(range(len(outputs)))
        for i, hit in enumerate(hits):
            with m.If(hit):
                m.d.comb += block.eq(i)
        chosen = _register(m, block, "chosen")
        m.d.comb += self.read_data.eq(Array(outputs)[chosen])
        return m

    def _storage(self) -> Memory:
        # Collisions are excluded or their outcome is open: no logic for them (toolchain: Yosys adds
        # it to RAMs whose ports share a clock).
        attributes: dict[str, Any] = {"no_rw_check": 1}
        if self.luts:
            attributes["ram_style"] = "distributed"
        return Memory(shape=8 * self.width_bytes, depth=self.depth, init=[], attrs=attributes)


def _register(m: Module, value: Value, name: str) -> Signal:
    register = Signal(Value.cast(value).shape(), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
