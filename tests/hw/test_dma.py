"""The DMA engine with narrow and wide buses, with and without stores."""

import json
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.dma import Dma
from gateformer.hw.dram_arbiter import DramArbiter
from gateformer.hw.instruction_fields import InstructionFields
from gateformer.hw.interfaces import InstructionPort, LocalWrite
from gateformer.sim.bench import run_bench
from gateformer.sim.dram import DramModel
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import ECP5_85K, SMALL
from gateformer.spec.isa import Engine

BENCH = str(Path(__file__).with_name("bench_dma.py"))


class DmaWithFields(wiring.Component):
    """The engine that asks for words of its instruction, and who answers."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.dma = Dma(config)
        members = dict(self.dma.signature.members)
        del members["fields"]
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dma = self.dma
        m.submodules.fields = fields = InstructionFields()
        m.d.comb += fields.instruction.eq(self.dma.instructions.stream.payload)
        wiring.connect(m, fields.fields, self.dma.fields)
        for name, member in self.signature.members.items():
            ours, theirs = getattr(self, name), getattr(self.dma, name)
            if not member.is_port:
                wiring.connect(m, wiring.flipped(ours), theirs)
            else:
                m.d.comb += ours.eq(theirs) if member.flow is Out else theirs.eq(ours)
        return m


@pytest.mark.parametrize(
    ("bus_bytes", "word_bytes", "burst_bytes", "dram", "memory_ports"),
    [
        (1, 8, 64, "readonly", 2),
        (2, 8, 256, "readwrite", 2),
        (8, 8, 256, "readwrite", 2),
        (4, 16, 128, "readwrite", 2),
        (4, 8, 256, "readwrite", 2),
        (2, 8, 256, "readwrite", 1),
        (8, 8, 256, "readwrite", 1),
        (1, 8, 64, "readonly", 1),
    ],
)
def test_dma(
    bus_bytes: int,
    word_bytes: int,
    burst_bytes: int,
    dram: str,
    memory_ports: int,
    tmp_path: Path,
) -> None:
    config = SMALL.replace(
        name="test",
        family="generic",
        bus_bytes=bus_bytes,
        word_bytes=word_bytes,
        burst_bytes=burst_bytes,
        dram=dram,
        memory_ports=memory_ports,
        prefetch=memory_ports == 2,
    )
    run_bench(
        Dma(config) if config.prefetch else DmaWithFields(config),
        BENCH,
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
    )


class DmaWithDram(wiring.Component):
    """The engine behind the arbiter and an SDRAM, the window being the first 256 KiB."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.DMA)),
                "write": Out(LocalWrite(config)),
                "abort": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = 1 << 18
        m.submodules.dma = dma = Dma(self.config)
        m.submodules.arbiter = arbiter = DramArbiter(self.config)
        m.submodules.dram = dram = DramModel(self.config, size_bytes=size)
        wiring.connect(m, wiring.flipped(self.instructions), dma.instructions)
        wiring.connect(m, wiring.flipped(self.write), dma.write)
        wiring.connect(m, dma.dram_read, arbiter.dma)
        wiring.connect(m, arbiter.port, dram.read)
        m.d.comb += [dma.abort.eq(self.abort), dma.window_size.eq(size)]
        return m


@pytest.mark.parametrize("bus_bytes", [2, 4])
def test_loads_use_the_bus(bus_bytes: int, tmp_path: Path) -> None:
    config = ECP5_85K.replace(family="generic", dram="readonly", bus_bytes=bus_bytes)
    run_bench(
        DmaWithDram(config),
        str(Path(__file__).with_name("bench_dma_bus.py")),
        tmp_path / "build",
        environment={"CONFIG": json.dumps(config.as_dict())},
        sources=(Path(__file__).parents[2] / "sim" / "dram_storage.v",),
    )
