"""A table in block RAM, with its output register."""

from collections.abc import Sequence
from typing import Literal

from amaranth import Cat, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

_ECP5_DEPTH = 1024
_ECP5_WIDTH = 18
_INIT_WORDS = 16
"""Words in one of the INITVALs of a DP16KD, each in as many bits as the next constant says."""
_INIT_STRIDE = 20


class Rom(Component):
    """`data` is entry `address` of `contents`, LATENCY cycles later; a new one every cycle.

    Contents: up to 1024 unsigned numbers of up to 18 bits, ValueError else. Block RAM is slow
    behind its clock, so the word comes from a register: inside the block for family "ecp5" (Yosys
    would leave it outside), beside it elsewhere. Nothing has a reset.
    """

    LATENCY = 2

    address: Signal
    data: Signal

    def __init__(
        self,
        contents: Sequence[int],
        *,
        family: Literal["generic", "ecp5", "ice40"] = "generic",
    ) -> None:
        bits = max(contents).bit_length()
        if len(contents) > _ECP5_DEPTH or bits > _ECP5_WIDTH or min(contents) < 0:
            raise ValueError(
                f"a ROM has at most {_ECP5_DEPTH} unsigned numbers of {_ECP5_WIDTH} bits, not "
                f"{len(contents)} from {min(contents)} to {max(contents)}"
            )
        self.contents = list(contents)
        self.family = family
        super().__init__({"address": In(ceil_log2(len(contents))), "data": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        return self._dp16kd() if self.family == "ecp5" else self._inferred()

    def _inferred(self) -> Module:
        m = Module()
        m.submodules.table = table = Memory(
            shape=len(self.data),
            depth=len(self.contents),
            init=self.contents,
            attrs={"ram_style": "block"},
        )
        port = table.read_port()
        word = Signal.like(self.data, name="word", reset_less=True)
        m.d.sync += word.eq(port.data)
        m.d.comb += [port.addr.eq(self.address), self.data.eq(word)]
        return m

    def _dp16kd(self) -> Module:
        m = Module()
        address = Cat(Const(0, 4), self.address, Const(0, 10 - len(self.address)))
        ports: dict[str, object] = {f"i_ADA{i}": address[i] for i in range(14)}
        ports |= {f"i_ADB{i}": Const(0, 1) for i in range(14)}
        ports |= {f"i_DI{p}{i}": Const(0, 1) for p in "AB" for i in range(_ECP5_WIDTH)}
        ports |= {f"i_CS{p}{i}": Const(0, 1) for p in "AB" for i in range(3)}
        ports |= {f"o_DOA{i}": bit for i, bit in enumerate(self.data)}
        for p, enable in (("A", 1), ("B", 0)):
            ports |= {
                f"i_CLK{p}": ClockSignal(),
                f"i_CE{p}": Const(enable, 1),
                f"i_OCE{p}": Const(enable, 1),
                f"i_WE{p}": Const(0, 1),
                f"i_RST{p}": Const(0, 1),
                f"p_DATA_WIDTH_{p}": _ECP5_WIDTH,
                f"p_REGMODE_{p}": "OUTREG",
                f"p_WRITEMODE_{p}": "NORMAL",
                f"p_CSDECODE_{p}": "0b000",
                f"p_CLK{p}MUX": f"CLK{p}",
            }
        for i in range(0, _ECP5_DEPTH, _INIT_WORDS):
            words = self.contents[i : i + _INIT_WORDS]
            value = sum(word << (_INIT_STRIDE * k) for k, word in enumerate(words))
            ports[f"p_INITVAL_{i // _INIT_WORDS:02X}"] = Const(value, _INIT_WORDS * _INIT_STRIDE)
        m.submodules.block = Instance(
            "DP16KD",
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_GSR="DISABLED",
            **ports,
        )
        return m
