"""Runs a compiled model on the golden model or on the RTL, sample by sample."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.host_model import Batch, Sample, layout_of
from gateformer.sim import rtl
from gateformer.sim.golden_program import GoldenMachine
from gateformer.sim.recording import WINDOW, Recording, recorded
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.image import Descriptor, ProgramImage
from gateformer.spec.isa import Engine
from gateformer.spec.registers import Counter, Register, length_word

Digests = dict[Engine, list[int]]

BUILD = Path("build/rtl")
"""Where compiled simulations are kept, relative to the working directory."""


class Machine(Protocol):
    """What can run a program image: the golden model, the RTL."""

    def write(self, space: str, address: int, content: bytes) -> None: ...

    def read(self, space: str, address: int, count: int) -> np.ndarray: ...

    def set_lengths(self, lengths: Sequence[int]) -> None: ...

    def start(self) -> Digests: ...


class GoldenRunner:
    """The golden model as a `Machine`."""

    def __init__(self, config: AcceleratorConfig, image: ProgramImage) -> None:
        self.image = image
        self.machine = GoldenMachine(config, np.zeros(image.window_bytes, np.uint8))

    def _memory(self, space: str) -> np.ndarray:
        return self.machine.dram if space == "dram" else self.machine.local

    def write(self, space: str, address: int, content: bytes) -> None:
        self._memory(space)[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def read(self, space: str, address: int, count: int) -> np.ndarray:
        return self._memory(space)[address : address + count].copy()

    def set_lengths(self, lengths: Sequence[int]) -> None:
        self.machine.lengths[: len(lengths)] = lengths

    def start(self) -> Digests:
        return self.machine.run(self.image.instructions)


class RtlRunner:
    """The RTL as a `Machine`; its registers are set for the image."""

    def __init__(self, machine: rtl.RtlMachine, image: ProgramImage) -> None:
        self.machine = machine
        registers = {
            Register.PROGRAM: image.program_address,
            Register.WINDOW_BASE: 0,
            Register.WINDOW_SIZE: image.window_bytes,
        }
        for register, value in registers.items():
            machine.write_register(register, value)
        self.set_lengths([SIZE_LIMIT] * machine.config.samples)

    def write(self, space: str, address: int, content: bytes) -> None:
        if space == "dram":
            self.machine.write_dram(address, content)
        else:
            self.machine.write_local(address, content)

    def read(self, space: str, address: int, count: int) -> np.ndarray:
        if space == "dram":
            return self.machine.read_dram(address, count)
        return self.machine.read_local(address, count)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        for sample, length in enumerate(lengths):
            self.machine.write_register(Register.LENGTH, length_word(sample, length))

    def start(self) -> Digests:
        return self.machine.run()


@dataclass(frozen=True)
class RunResult:
    """One run of the program: the outputs (ONNX names, float32) of each sample of the batch and the
    multiply-accumulates that they took; for RTL the cycles, whether every instruction's writes
    equal the golden model's, the performance counters, how long the simulation took, and what was
    recorded."""

    outputs: tuple[Sample, ...]
    macs: int
    cycles: int | None = None
    bit_exact: bool | None = None
    counters: dict[Counter, int] = field(default_factory=dict)
    seconds: float = 0.0
    recording: Recording | None = None


def load(machine: Machine, config: AcceleratorConfig, image: ProgramImage) -> None:
    """Writes constants and instructions to where the program expects them."""
    space = "local" if config.dram == "none" else "dram"
    machine.write(space, image.data_address, image.data + image.instruction_bytes())


def _bytes(model: CompiledModel, descriptor: Descriptor) -> int:
    return layout_of(descriptor, model.config).words * model.config.word_bytes


def _run(machine: Machine, model: CompiledModel, batch: Batch) -> Digests:
    for descriptor in model.image.inputs:
        content = batch.content[descriptor.name].tobytes()
        machine.write(descriptor.space, descriptor.address, content)
    machine.set_lengths(batch.lengths)
    return machine.start()


def _outputs(machine: Machine, model: CompiledModel) -> dict[str, np.ndarray]:
    return {d.name: machine.read(d.space, d.address, _bytes(model, d)) for d in model.image.outputs}


def simulate(
    model: CompiledModel,
    samples: Sequence[Sample],
    *,
    engine: Literal["rtl", "golden"] = "rtl",
    length: int | None = None,
    trace: Path | None = None,
    build: Path = BUILD,
    stalls: tuple[int, int] = (0, 0),
    record: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[RunResult]:
    """Runs samples batch by batch and yields each run's result.

    samples: float arrays by ONNX input name. engine "golden" is the integer model in numpy; "rtl"
    is the generated Verilog in Verilator, with every instruction's writes compared with golden's.
    length: how many tokens of each sample count, at most. trace: an FST file with all signals of
    the RTL run. build: where the compiled simulation is kept. stalls: random stalls of (DRAM, local
    memory) in 256ths of all cycles. record: whether RTL runs record what every engine does.
    progress: told what takes long. Raises DataError for a mask or
    a length that the model cannot run with, ToolError when the simulation cannot be built, RunError
    when the accelerator stops with an error.
    """
    host, image = model.host(), model.image
    golden = GoldenRunner(model.config, image)
    load(golden, model.config, image)
    with ExitStack() as stack:
        machine: RtlRunner | None = None
        if engine == "rtl":
            program = rtl.build(model.config, build, trace=trace is not None, progress=progress)
            running = stack.enter_context(rtl.RtlMachine(program, model.config, trace))
            running.set_stalls(*stalls)
            running.record_profiles(WINDOW if record else 0)
            machine = RtlRunner(running, image)
            load(machine, model.config, image)
            progress("running")
        for first in range(0, len(samples), image.samples):
            part = samples[first : first + image.samples]
            batch = host.encode(part, length)
            macs = image.macs([min(n, image.tokens or 1) for n in batch.lengths[: len(part)]])
            expected = _run(golden, model, batch)
            outputs = _outputs(golden, model)
            if machine is None:
                yield RunResult(tuple(host.decode(outputs, part, batch.lengths)), macs)
                continue
            begin = time.perf_counter()
            digests = _run(machine, model, batch)
            seconds = time.perf_counter() - begin
            seen = _outputs(machine, model)
            same = digests == expected and all(
                np.array_equal(seen[name], outputs[name]) for name in outputs
            )
            decoded = tuple(host.decode(seen, part, batch.lengths))
            cycles, counters = machine.machine.cycles, machine.machine.counters()
            recording = None
            if record:
                recording = recorded(machine.machine, image.at_lengths(batch.lengths))
            yield RunResult(decoded, macs, cycles, same, counters, seconds, recording)


def utilization(config: AcceleratorConfig, macs: int, cycles: int) -> float:
    """MACs of the model's own products / (rows * cols * lanes * cycles)."""
    return macs / (config.macs * cycles)


def stalls_by_engine(counters: dict[Counter, int]) -> dict[str, dict[str, int]]:
    """Counters as engine -> reason -> cycles (or beats, for DRAM)."""
    table: dict[str, dict[str, int]] = {}
    for counter, value in counters.items():
        for engine in ("LOAD_A", "LOAD_B", "LOAD_P", "DMA", "EPILOGUE", "VECTOR", "ARRAY", "DRAM"):
            if counter.name.startswith(engine + "_"):
                reason = counter.name[len(engine) + 1 :].lower()
                table.setdefault(engine.lower(), {})[reason] = value
                break
    return table
