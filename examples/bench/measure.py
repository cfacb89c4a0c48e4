"""Measures the benchmark's works and the speed of the tools."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateformer.compiler.bound import bound
from gateformer.compiler.cycle_model import predict_cycles
from gateformer.examples.bench.works import WORKS, Work
from gateformer.hw.generate import accelerator_verilog
from gateformer.sim.simulate import BUILD, simulate, utilization
from gateformer.spec.configs import ECP5_85K, find_config
from gateformer.spec.errors import GateformerError, RunError

Note = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One work. changes: of the named config's parameters. utilization: the share of the cycles in
    which the array is busy with the model's own products; bound: the most that any schedule could
    reach, which takes bound_cycles; goal: the least that is wanted. model_cycles: what the cycle
    model predicts. dram_bytes: what moved over the bus, instructions included."""

    work: str
    config: str
    changes: Mapping[str, Any]
    model_macs: int
    cycles: int
    utilization: float
    bound: float
    bound_cycles: int
    model_cycles: int
    goal: float
    dram_bytes: int

    @property
    def met(self) -> bool:
        return self.utilization >= self.goal

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(work: Work, note: Note) -> Row:
    """Compiles a work, predicts its cycles, and runs it on the RTL.

    Raises RunError when the RTL differs from the golden model, GateformerError for a work that this
    installation cannot run.
    """
    config = find_config(work.config).replace(**work.changes)
    note(f"{work.name}: compiling")
    with tempfile.TemporaryDirectory() as folder:
        prepared = work.prepare(config, Path(folder))
    model = prepared.model
    lengths = model.host().encode(prepared.samples, None).lengths
    predicted = predict_cycles(config, model.image.at_lengths(lengths))
    note(f"{work.name}: simulating")
    (run,) = simulate(
        model,
        prepared.samples,
        record=True,
        progress=lambda text: note(f"{work.name}: {text}"),
    )
    if not run.bit_exact:
        raise RunError(f"{work.name}: the RTL differs from the golden model")
    assert run.cycles is not None and run.recording is not None
    limit = bound(config, model.image, lengths=lengths).cycles
    possible = utilization(config, run.macs, limit)
    return Row(
        work=work.title,
        config=work.config,
        changes=dict(work.changes),
        model_macs=run.macs,
        cycles=run.cycles,
        utilization=utilization(config, run.macs, run.cycles),
        bound=possible,
        bound_cycles=limit,
        model_cycles=predicted,
        goal=work.goal * possible if work.of_bound else work.goal,
        dram_bytes=run.recording.timeline.dram_beats * config.bus_bytes,
    )


@dataclass(frozen=True)
class Tool:
    """A figure of the tools' speed, and the one that is wanted; `least` tells which way."""

    name: str
    value: float
    goal: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.least else self.value <= self.goal


def tools(note: Note) -> Iterator[Tool]:
    """Times the tools, on one core each."""
    works = {work.name: work for work in WORKS}
    config = ECP5_85K
    note("tools: Verilog")
    yield Tool("verilog_seconds", _seconds(lambda: accelerator_verilog(config)), 10)
    note("tools: the golden model")
    with tempfile.TemporaryDirectory() as folder:
        deit = works["deit-tiny"].prepare(config, Path(folder))
    golden = simulate(deit.model, deit.samples, engine="golden")
    yield Tool("golden_deit_tiny_seconds", _seconds(lambda: next(golden)), 5)
    note("tools: the simulation")
    with tempfile.TemporaryDirectory() as folder:
        attention = works["attention"].prepare(config, Path(folder))
    (run,) = simulate(attention.model, attention.samples, build=BUILD)
    assert run.cycles is not None
    speed = run.cycles / run.seconds
    yield Tool("simulation_cycles_per_second", speed, 100_000, least=True)
    note("tools: the compiler")
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepared = works["minilm-128"].prepare(config, Path(folder))
        except GateformerError as error:
            note(f"minilm_compile_seconds is left out: {error}")
            return
    yield Tool("minilm_compile_seconds", prepared.seconds, 20)


def _seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start
