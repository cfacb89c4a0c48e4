"""What a simulation recorded of its run, as a timeline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateformer.compiler.bound import array_cycles
from gateformer.compiler.cycle_model import predict
from gateformer.compiler.timeline import Reason, Span, Timeline
from gateformer.sim.rtl import RtlMachine
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import RunError
from gateformer.spec.isa import FORMATS, Engine, Instruction, Opcode

WINDOW = 1024
"""Cycles over which the use of DRAM is summed up."""


@dataclass(frozen=True)
class Recording:
    """One run. program: the instructions with their dynamic sizes cut. dram_bytes: moved in each
    window of WINDOW cycles."""

    timeline: Timeline
    program: tuple[Instruction, ...]
    dram_bytes: np.ndarray


def recorded(machine: RtlMachine, program: tuple[Instruction, ...]) -> Recording:
    """The machine's last run, for which `record_profiles` was called with WINDOW.

    program: its instructions with their dynamic sizes cut. Raises RunError when the record is not
    that of the program.
    """
    spans, windows = machine.profile()
    config = machine.config
    timeline = Timeline(
        tuple(_spans(config, spans, program)),
        machine.cycles,
        int(windows["beats"].sum()),
        int(windows["occupied"].sum()),
    )
    return Recording(timeline, program, windows["beats"].astype(np.int64) * config.bus_bytes)


def predicted(config: AcceleratorConfig, program: tuple[Instruction, ...]) -> Recording:
    """The same by the cycle model: its bytes are spread over the DMA's instructions."""
    timeline = predict(config, program)
    times, totals = [0], [0]
    for span in timeline.of(Engine.DMA):
        i = program[span.index]
        times += [span.start, span.end]
        totals += [totals[-1], totals[-1] + i["rows"] * i["words"] * config.word_bytes]
    edges = np.arange(0, timeline.cycles + WINDOW, WINDOW)
    return Recording(timeline, program, np.diff(np.interp(edges, times, totals)))


def _spans(
    config: AcceleratorConfig, records: np.ndarray, program: Sequence[Instruction]
) -> list[Span]:
    """Engines complete instructions in their order, so the n-th record of one is its n-th."""
    result = []
    for engine in Engine:
        mine = [n for n, i in enumerate(program) if engine in FORMATS[i.opcode].engines]
        own = records[records["engine"] == engine]
        if len(own) != len(mine):
            raise RunError(
                f"the simulation recorded {len(own)} instructions of {engine.name} where the "
                f"program has {len(mine)}"
            )
        last = 0
        for index, record in zip(mine, own.tolist(), strict=True):
            span = _span(config, engine, index, record, program[index], last)
            result.append(span)
            last = span.end
    return result


def _span(
    config: AcceleratorConfig,
    engine: Engine,
    index: int,
    record: tuple[int, int, int, int, list[int]],
    instruction: Instruction,
    last: int,
) -> Span:
    """last: the end of the engine's span before."""
    _, ready, start, end, counts = record
    waits = {reason: int(count) for reason, count in zip(Reason, counts, strict=True)}
    if engine is Engine.ARRAY:
        # It completes an instruction when the last tile starts, and may hold the next one then.
        steps = array_cycles(config, instruction)
        inside = sum(waits[r] for r in (Reason.OPERAND, Reason.DRAIN, Reason.MEMORY_PORT))
        end += steps // _tiles(config, instruction) if steps else 0
        start = ready = max(last, end - steps - inside)
        waits[Reason.QUEUE] = start - last
    elif instruction.opcode is not Opcode.GEMM and engine is Engine.EPILOGUE:
        waits[Reason.OPERAND] = 0  # a table is no sum of the array
    return Span(engine, index, ready, start, end, {r: n for r, n in waits.items() if n})


def _tiles(config: AcceleratorConfig, gemm: Instruction) -> int:
    return -(-gemm["m"] // config.rows) * -(-gemm["n"] // config.cols)
