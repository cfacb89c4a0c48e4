"""Predicts the cycles of a program: every engine in order, tokens between them, simple
durations."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateformer.compiler.layout import words_of
from gateformer.compiler.timeline import Reason, Span, Timeline
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import SYNC_ENGINES, WORDS, Engine, Instruction, Opcode

DRAM_EFFICIENCY = 0.96
"""Share of its bus that an SDR SDRAM delivers beside refresh and the fetch of instructions."""
DRAM_ROW_BYTES = 1024
DRAM_ROW_CYCLES = 8
"""Cycles lost where a transfer enters another row of the memory."""
DRAM_LATENCY = 20
"""Cycles from a transfer's start to its first data."""
PIPELINE = 24
"""Cycles from the last step of the array to the last write of the epilogue."""
VECTOR_LATENCY = 80
"""Cycles of a vector instruction beyond its rows: filling, last reciprocal, draining."""


@dataclass
class _State:
    free: dict[Engine, float] = field(default_factory=lambda: dict.fromkeys(Engine, 0.0))
    tokens: dict[tuple[Engine, Engine], list[float]] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    index: int = 0
    moved: int = 0
    """Words between DRAM and local memory."""
    b_ready: list[float] = field(default_factory=list)
    p_ready: list[float] = field(default_factory=list)

    def start(self, engine: Engine, mask: int) -> float:
        """When an engine can start: it is free and its tokens are there; they are taken."""
        time = self.free[engine]
        for producer in SYNC_ENGINES:
            if mask >> producer & 1:
                time = max(time, self.tokens[(producer, engine)].pop(0))
        return time

    def finish(self, engine: Engine, mask: int, start: float, time: float) -> None:
        ready = round(self.free[engine])
        begin = max(round(start), ready)
        waits = {Reason.SEMAPHORE: begin - ready}
        self.spans.append(Span(engine, self.index, ready, begin, max(round(time), begin), waits))
        self.free[engine] = time
        for consumer in SYNC_ENGINES:
            if mask >> consumer & 1:
                self.tokens.setdefault((engine, consumer), []).append(time)


def predict_cycles(config: AcceleratorConfig, program: Iterable[Instruction]) -> int:
    """Cycles from start to done."""
    return predict(config, program).cycles


def predict(config: AcceleratorConfig, program: Iterable[Instruction]) -> Timeline:
    """What every engine does when; stalls of local memory's ports are neglected."""
    state = _State()
    for index, i in enumerate(program):
        state.index = index
        match i.opcode:
            case Opcode.HALT:
                continue
            case Opcode.GEMM:
                _gemm(config, state, i)
            case Opcode.DMA_LOAD | Opcode.DMA_STORE:
                state.moved += i["rows"] * i["words"]
                _simple(state, Engine.DMA, i, _dma(config, i) + DRAM_LATENCY)
            case Opcode.LOAD_B:
                words = i["n"] * words_of(i["k"], 1, config.word_bytes)
                state.b_ready.append(_simple(state, Engine.LOAD_B, i, words + 8))
            case Opcode.LOAD_P:
                words = words_of(i["count"], 8, config.word_bytes)
                state.p_ready.append(_simple(state, Engine.LOAD_P, i, words + 8))
            case Opcode.ACTIVATION_TABLE:
                _simple(state, Engine.EPILOGUE, i, i["count"] + 10)
            case Opcode.EXP_TABLE:
                _simple(state, Engine.VECTOR, i, i["count"] + 10)
            case Opcode.NORM_GAIN:
                _simple(state, Engine.VECTOR, i, i["count"] + 10)
            case Opcode.SOFTMAX:
                row = max(-(-i["length"] // config.softmax_lanes), 40)
                _simple(state, Engine.VECTOR, i, i["rows"] * row + VECTOR_LATENCY)
            case Opcode.NORM:
                row = max(-(-i["channels"] // config.norm_lanes), 40)
                _simple(state, Engine.VECTOR, i, i["rows"] * row + VECTOR_LATENCY)
    moved = 4 * WORDS * (state.index + 1) + state.moved * config.word_bytes
    cycles = round(max(state.free.values()))
    return Timeline(tuple(state.spans), cycles, moved // config.bus_bytes)


def _dma(config: AcceleratorConfig, i: Instruction) -> float:
    """Cycles on the bus: beats, one more for each burst, rows of the memory; and the fetch of the
    instruction itself."""
    size = i["words"] * config.word_bytes
    dense = i["rows"] == 1 or i["dram_stride"] == size
    runs, size = (1, i["rows"] * size) if dense else (i["rows"], size)
    bursts, rows = -(-size // config.burst_bytes), -(-size // DRAM_ROW_BYTES)
    beats = size // config.bus_bytes + bursts + rows * DRAM_ROW_CYCLES
    return (runs * beats + 4 * WORDS / config.bus_bytes) / DRAM_EFFICIENCY


def _simple(state: _State, engine: Engine, i: Instruction, duration: float) -> float:
    start = state.start(engine, i["wait"])
    end = start + duration
    state.finish(engine, i["signal"], start, end)
    return end


def _gemm(config: AcceleratorConfig, state: _State, i: Instruction) -> None:
    """LOAD_A, ARRAY and EPILOGUE overlap; each is no faster than the one before it feeds it."""
    groups, tiles = -(-i["m"] // config.rows), -(-i["n"] // config.cols)
    k_words = words_of(i["k"], 1, config.word_bytes)
    tile = max(words_of(i["k"], 1, config.lanes), config.cols)
    load_start = state.start(Engine.LOAD_A, i["wait"])
    load_end = load_start + i["m"] * k_words + 8
    first_a = load_start + min(i["m"], config.rows) * k_words + 8
    b_ready = max(state.b_ready, default=0.0)
    start = max(state.free[Engine.ARRAY], first_a, b_ready - groups * tiles * tile)
    end = max(start + groups * tiles * tile, load_end + tiles * tile, b_ready)
    drain = tiles * groups * config.rows * config.cols / config.epilogue_lanes
    epilogue = max(
        state.start(Engine.EPILOGUE, i["epilogue_wait"]),
        start,
        state.p_ready[0] if state.p_ready else 0.0,
    )
    done = max(epilogue + drain, end) + PIPELINE
    state.finish(Engine.LOAD_A, i["signal"], load_start, max(load_end, end - 2 * tiles * tile))
    state.finish(Engine.ARRAY, 0, start, end)
    state.finish(Engine.EPILOGUE, i["epilogue_signal"], epilogue, done)
    if i["release_b"]:
        state.b_ready.clear()
    if i["release_p"] and state.p_ready:
        state.p_ready.pop(0)
