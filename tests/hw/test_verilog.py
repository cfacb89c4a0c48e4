"""The printed Verilog: the same bytes every time, no needless contents, ports as described."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from gateformer.boards.yowasp import run_tool
from gateformer.hw.local_memory import LocalMemory
from gateformer.hw.verilog import describe, to_verilog
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import NAMED

_PRINT = """
from gateformer.hw.local_memory import LocalMemory
from gateformer.hw.verilog import to_verilog
from gateformer.spec.configs import SMALL
print(to_verilog(LocalMemory(SMALL), name="unit"))
"""


class _Storage(Component):
    """A memory of 64 bytes with given contents."""

    address: Signal
    value: Signal

    def __init__(self, contents: list[int]) -> None:
        self.contents = contents
        super().__init__({"address": In(6), "value": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=64, init=self.contents)
        port = memory.read_port()
        m.d.comb += [port.addr.eq(self.address), self.value.eq(port.data)]
        write = memory.write_port()
        m.d.comb += write.addr.eq(self.address)
        return m


def test_same_bytes_in_processes_with_different_hash_seeds() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_zero_contents_are_not_printed() -> None:
    assert "initial" not in to_verilog(_Storage([]), name="unit")


def test_other_contents_are_printed() -> None:
    text = to_verilog(_Storage([0, 7]), name="unit")
    assert re.search(r"\[1\] = 8'h07;", text)


@pytest.mark.parametrize("config", NAMED.values(), ids=lambda config: config.name)
def test_description_is_plain_and_has_the_ports_that_yosys_reads(
    config: AcceleratorConfig, tmp_path: Path
) -> None:
    component = LocalMemory(config)
    (tmp_path / "unit.v").write_text(to_verilog(component, name="unit"))
    run_tool(
        "yosys",
        ["-p", "read_verilog unit.v; proc; write_json unit.json"],
        folder=tmp_path,
        log="yosys.log",
    )
    ports = json.loads((tmp_path / "unit.json").read_text())["modules"]["unit"]["ports"]
    read = {name: (port["direction"], len(port["bits"])) for name, port in ports.items()}
    description = describe(component, config, name="unit")
    described = description["ports"]
    assert {port["name"]: (port["direction"], port["width"]) for port in described} == read
    assert json.loads(json.dumps(description)) == description
    assert description["config"] == config.as_dict()
    assert description["parameters"]["macs"] == config.macs
    assert description["versions"]["gateformer"]
