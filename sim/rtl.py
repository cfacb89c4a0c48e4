"""The generated accelerator under Verilator, as a machine that Python drives."""

import fcntl
import hashlib
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from gateformer.compiler.timeline import Reason
from gateformer.hw.verilog import to_verilog
from gateformer.sim import verilator
from gateformer.sim.golden_program import WRITERS
from gateformer.sim.top import DRAM_BYTES, SimulationTop
from gateformer.sim.verilog_cache import verilog_digest
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming
from gateformer.spec.errors import RunError, ToolError
from gateformer.spec.isa import Engine
from gateformer.spec.registers import Counter, ErrorCode, Register

_FOLDER = Path(__file__).parent
_TOP = "simulation_top"
SPAN = np.dtype(
    [("engine", "<u4"), ("ready", "<u4"), ("start", "<u4"), ("end", "<u4"),
     ("waits", "<u4", (len(Reason),))]
)  # fmt: skip
"""One instruction at one engine: `Span` of sim/profiler.h."""
WINDOW = np.dtype([("beats", "<u4"), ("occupied", "<u4"), ("steps", "<u4")])
"""Beats of DRAM, cycles in which its bus was taken, steps of the array: `Window` there."""


def build(
    config: AcceleratorConfig,
    directory: Path,
    *,
    timing: DramTiming = SDRAM,
    trace: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Generates the Verilog of the simulation top, with a DRAM of that timing, and compiles it;
    returns the program.

    What is already built from the same sources is used again. Raises ToolError if a tool fails.
    """
    progress("generating Verilog")
    verilog = verilog_digest(config, timing, directory, _verilog)
    sources = [_FOLDER / "harness.cpp", _FOLDER / "dram_storage.v"]
    headers = [_FOLDER / "profiler.h", *sorted((_FOLDER / "fst").glob("*.h"))]
    key = hashlib.sha256(verilog + bytes([trace]))
    for source in [*sources, *headers]:
        key.update(source.read_bytes())
    folder = directory.resolve() / f"{config.name}-{key.hexdigest()[:16]}"
    program = folder / "simulation"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            (folder / f"{_TOP}.v").write_text(_verilog(config, timing))
            progress("compiling with Verilator")
            _compile(config, folder, sources, trace=trace)
    return program


@cache
def _verilog(config: AcceleratorConfig, timing: DramTiming) -> str:
    """Generating takes seconds, and one process runs many models of a config."""
    top = SimulationTop(config.replace(family="generic"), timing=timing)
    return to_verilog(top, name=_TOP)


def _compile(config: AcceleratorConfig, folder: Path, sources: list[Path], *, trace: bool) -> None:
    """Leaves the program `simulation` in the folder."""
    program = folder / "simulation"
    array = f"{_TOP}__DOT__dram__DOT__storage__DOT__array"
    flags = [
        f"-DDRAM_ARRAY={array}",
        f"-DDRAM_BYTES={config.bus_bytes}",
        f"-I{_FOLDER}",
        "-std=c++17",
    ]
    if config.dram == "none":
        flags.append("-DGATEFORMER_NO_DRAM")
    if trace:
        flags += ["-DGATEFORMER_TRACE", f"-I{_FOLDER / 'fst'}"]
    command = [
        "verilator", "--cc", "--exe", "--build", "-j", "2", "-O3", "--x-assign", "fast",
        "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint",
        "--top-module", _TOP, "--prefix", f"V{_TOP}", "--Mdir", str(folder / "obj"),
        "-o", str(program.with_suffix(".new")), "-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0",
        "-CFLAGS", " ".join(flags),
        *(["--trace-fst", "-MAKEFLAGS", "LDLIBS=-pthread"] if trace else []),
        str(folder / f"{_TOP}.v"), *map(str, sources),
    ]  # fmt: skip
    log = folder / "build.log"
    with log.open("w") as file:
        done = subprocess.run(
            command, env=verilator.environment(), stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise ToolError(f"Verilator could not build the simulation: see {log}")
    program.with_suffix(".new").rename(program)


class RtlMachine:
    """One running simulation. Use as a context manager."""

    def __init__(self, program: Path, config: AcceleratorConfig, trace: Path | None = None) -> None:
        self.config = config
        self._process = subprocess.Popen(
            [str(program), str(trace) if trace else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "RtlMachine":
        return self

    def __exit__(self, *_: object) -> None:
        self._send(b"q")
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _receive(self, count: int) -> bytes:
        assert self._process.stdout is not None
        content = self._process.stdout.read(count)
        if len(content) != count:
            raise RunError("the simulation ended unexpectedly")
        return content

    def _words(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self._receive(4 * count))

    def write_dram(self, address: int, content: bytes) -> None:
        """Writes simulated DRAM at once. Raises RunError beyond its end."""
        if address + len(content) > DRAM_BYTES:
            raise RunError(f"the model needs more than the {DRAM_BYTES >> 20} MiB simulated DRAM")
        self._send(b"W" + struct.pack("<II", address, len(content)) + content)

    def read_dram(self, address: int, count: int) -> np.ndarray:
        self._send(b"R" + struct.pack("<II", address, count))
        return np.frombuffer(self._receive(count), np.uint8)

    def write_register(self, register: Register, value: int) -> None:
        self._send(b"w" + struct.pack("<II", register, value))

    def read_register(self, register: Register) -> int:
        self._send(b"r" + struct.pack("<I", register))
        return self._words(1)[0]

    def write_local(self, address: int, content: bytes) -> None:
        """Writes local memory through the registers, four bytes at a time."""
        self.write_register(Register.LOCAL_ADDRESS, address)
        for (word,) in struct.iter_unpack("<I", content):
            self.write_register(Register.LOCAL_DATA, word)

    def read_local(self, address: int, count: int) -> np.ndarray:
        self.write_register(Register.LOCAL_ADDRESS, address)
        words = [self.read_register(Register.LOCAL_DATA) for _ in range(count // 4)]
        return np.array(words, "<u4").view(np.uint8)

    def set_stalls(self, dram: int, local: int) -> None:
        """Blocks the DRAM port and local memory at random in dram/256, local/256 of the cycles."""
        self._send(b"s" + struct.pack("<II", dram, local))

    def run(self, limit: int = 1 << 31) -> dict[Engine, list[int]]:
        """Starts the program and waits for its end; the digests of each engine's instructions.

        Raises RunError when the accelerator stops with an error, or runs for more than `limit`
        cycles.
        """
        self.write_register(Register.CONTROL, 1)
        self._send(b"g" + struct.pack("<I", limit))
        stopped, count = self._words(2)
        digests: dict[Engine, list[int]] = {engine: [] for engine in WRITERS}
        words = self._words(2 * count)
        for index, value in zip(words[::2], words[1::2], strict=True):
            digests[WRITERS[index]].append(value)
        status = self.read_register(Register.STATUS)
        if status & 4:
            code, engine = ErrorCode(status >> 4 & 15), Engine(status >> 8 & 7)
            pc = self.read_register(Register.ERROR_PC)
            raise RunError(
                f"the accelerator stopped with {code.name} ({engine.name}) at instruction {pc:#x}"
            )
        if not stopped:
            raise RunError(f"the accelerator did not finish within {limit} cycles")
        return digests

    def record_profiles(self, window: int) -> None:
        """Makes later runs record what their engines do, with sums over every `window` cycles."""
        self._send(b"p" + struct.pack("<I", window))

    def profile(self) -> tuple[np.ndarray, np.ndarray]:
        """What the last run recorded: its spans, [count] of SPAN in the order of their ends, and
        sums over windows, [count] of WINDOW."""
        self._send(b"t")
        spans, windows = self._words(2)
        return (
            np.frombuffer(self._receive(spans * SPAN.itemsize), SPAN),
            np.frombuffer(self._receive(windows * WINDOW.itemsize), WINDOW),
        )

    @property
    def cycles(self) -> int:
        """Cycles of the last run, from start to done."""
        return self.read_register(Register.CYCLES)

    def counters(self) -> dict[Counter, int]:
        """The performance counters of the last run."""
        totals = {}
        for counter in Counter:
            self.write_register(Register.COUNTER_SELECT, counter)
            totals[counter] = self.read_register(Register.COUNTER)
        return totals
