"""A profile in the Trace Event Format, which Perfetto and chrome://tracing open."""

from collections.abc import Iterator
from typing import Any

from gateformer.sim.profile import Profile
from gateformer.sim.recording import WINDOW
from gateformer.spec.isa import Engine

PROCESS = 1
TRACK = 10
"""Thread number of engine 0: viewers take 0 for idleness and the process's number for its main
thread."""
DRAM_TRACK = "DRAM bytes a cycle"


def trace(profile: Profile) -> dict[str, Any]:
    """One track an engine, one slice an instruction, a counter for DRAM. A microsecond of the trace
    is a cycle."""
    return {
        "traceEvents": [*_tracks(profile), *_slices(profile), *_counters(profile)],
        "displayTimeUnit": "ms",
        "otherData": {
            "config": profile.config.name,
            "cycles": profile.timeline.cycles,
            "time": "1 us of the trace is 1 cycle",
        },
    }


def _tracks(profile: Profile) -> Iterator[dict[str, Any]]:
    yield _metadata("process_name", TRACK, name=f"gateformer {profile.config.name}")
    for place, engine in enumerate((Engine.ARRAY, *list(Engine)[:-1])):
        yield _metadata("thread_name", TRACK + engine, name=engine.name)
        yield _metadata("thread_sort_index", TRACK + engine, sort_index=place)


def _metadata(kind: str, thread: int, **arguments: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": thread, "name": kind, "args": arguments}


def _slices(profile: Profile) -> Iterator[dict[str, Any]]:
    for span in profile.timeline.spans:
        opcode = profile.recording.program[span.index].opcode.name
        layer = profile.layer_of(span)
        waits = {f"waits for {reason.value}": cycles for reason, cycles in span.waits.items()}
        yield {
            "ph": "X",
            "pid": PROCESS,
            "tid": TRACK + span.engine,
            "ts": span.start,
            "dur": span.end - span.start,
            "name": f"{layer} {opcode}",
            "cat": opcode,
            "args": {"layer": layer, "instruction": span.index, "ready": span.ready, **waits},
        }


def _counters(profile: Profile) -> Iterator[dict[str, Any]]:
    for place, moved in enumerate(profile.recording.dram_bytes.tolist()):
        yield {
            "ph": "C",
            "pid": PROCESS,
            "ts": place * WINDOW,
            "name": DRAM_TRACK,
            "args": {"bytes": moved / WINDOW},
        }
