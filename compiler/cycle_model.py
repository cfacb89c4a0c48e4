"""Predicts the cycles of a program, engine by engine, at the grain of groups of rows."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from gateformer.compiler import timing as t
from gateformer.compiler.accesses import Block, accesses
from gateformer.compiler.dram_bus import DramBus
from gateformer.compiler.layout import words_of
from gateformer.compiler.ring_model import Ring
from gateformer.compiler.timeline import Reason, Span, Timeline
from gateformer.spec.config import INSTRUCTION_BYTES, AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming
from gateformer.spec.isa import FORMATS, Engine, Instruction, Opcode


def predict(
    config: AcceleratorConfig, program: Iterable[Instruction], timing: DramTiming = SDRAM
) -> Timeline:
    """What every engine does when, from start to done."""
    machine = CycleModel(config, timing)
    for instruction in program:
        machine.issue(instruction)
    return machine.timeline()


def predict_cycles(config: AcceleratorConfig, program: Iterable[Instruction]) -> int:
    """Cycles from start to done."""
    return predict(config, program).cycles


_INSIDE = {Engine.DMA: Reason.DRAM}
"""What an engine waits for while it runs, where it is not an operand."""


class CycleModel:
    """All engines in time. Instructions come in program order; tokens are implied by the words that
    they read and write, so semaphore masks need not be there yet."""

    def __init__(self, config: AcceleratorConfig, timing: DramTiming = SDRAM) -> None:
        self.config = config
        self.bus = DramBus(timing)
        self.latency = timing.latency
        self.free = dict.fromkeys(Engine, 0)
        """When an engine completed its last instruction."""
        self.spans: list[Span] = []
        self._index = 0
        self._dispatch = 60
        self._fetched = 0
        self._queues: dict[Engine, deque[int]] = {
            engine: deque(maxlen=config.queue_depth) for engine in Engine
        }
        self._written = np.zeros(config.local_words, np.int64)
        self._read = np.zeros(config.local_words, np.int64)
        self.ring_a = Ring(config.a_depth)
        self.ring_b = Ring(config.b_depth)
        self.ring_p = Ring(config.p_depth * 8 // config.word_bytes)
        self.slots = Ring(config.accumulator_tiles)
        self._tiles: deque[int] = deque()
        """When each tile of B in the ring that no product has used is complete."""
        self._records: deque[tuple[int, int]] = deque()
        """Blocks of scale records: when complete, words."""
        self.array_end = 0
        """When the array's last tile so far ends."""
        self.last_end = 0
        """When the last instruction so far is complete."""

    def timeline(self) -> Timeline:
        """The record of everything issued so far."""
        end = max(self.free.values()) + 20
        return Timeline(tuple(self.spans), end, self.bus.beats, self.bus.occupied)

    # -------------------------------------------------------------------------- instructions

    def issue(self, i: Instruction) -> None:
        """Runs one instruction, the next of the program."""
        engines = FORMATS[i.opcode].engines
        arrivals = self._dispatched(engines)
        if i.opcode is Opcode.GEMM:
            self._gemm(i, arrivals)
        elif engines:
            (engine,) = engines
            ready = self._ready(engine, arrivals[engine])
            start = max(ready, self._hazards(i, engine))
            match i.opcode:
                case Opcode.DMA_LOAD | Opcode.DMA_STORE:
                    end = self._dma(i, start)
                case Opcode.LOAD_B:
                    end = self._load_b(i, start)
                case Opcode.LOAD_P:
                    end = self._load_p(i, start)
                case _:
                    end = start + self._work(i)
            still = max(end - start - self._work(i), 0)
            self._finish(i, engine, ready, start, end, {_INSIDE.get(engine, Reason.OPERAND): still})
        self._index += 1

    def _work(self, i: Instruction) -> int:
        """Cycles in which an engine works on an instruction that is no GEMM."""
        config = self.config
        match i.opcode:
            case Opcode.DMA_LOAD | Opcode.DMA_STORE:
                return i["rows"] * i["words"] * config.word_bytes // config.bus_bytes
            case Opcode.LOAD_B:
                return i["n"] * words_of(i["k"], 1, config.word_bytes) + t.LOADER_LATENCY
            case Opcode.LOAD_P:
                words = words_of(i["count"], 8, config.word_bytes)
                return t.PARAMETER_CYCLES * words + t.PARAMETER_LATENCY
            case Opcode.SOFTMAX:
                return t.softmax_cycles(config, i["rows"], i["length"])
            case Opcode.NORM:
                return t.norm_cycles(config, i["rows"], i["channels"])
        return t.table_cycles(i.opcode, i["count"])

    def _dispatched(self, engines: tuple[Engine, ...]) -> dict[Engine, int]:
        """When the instruction comes to its engines' queues."""
        self._fetch(self._index)
        for engine in engines:
            queue = self._queues[engine]
            if len(queue) == self.config.queue_depth:
                self._dispatch = max(self._dispatch, queue[0])
        if engines:
            self._dispatch += t.DISPATCH[len(engines)]
        return dict.fromkeys(engines, self._dispatch)

    def _fetch(self, index: int) -> None:
        """Lets the program be fetched up to an instruction."""
        if self.config.dram == "none":
            return
        beats = t.FETCH_INSTRUCTIONS * INSTRUCTION_BYTES // self.config.bus_bytes
        while self._fetched <= index:
            self.bus.burst(self._dispatch, -1 - self._fetched * INSTRUCTION_BYTES, beats)
            self._fetched += t.FETCH_INSTRUCTIONS

    def _fetch_beside(self, time: int) -> None:
        """Lets the fetch take its share of the bus before a burst at a time: it goes on for as many
        instructions as are handed on until then, if the queues take them."""
        ahead = (time - self._dispatch) // t.DISPATCH[1]
        self._fetch(self._index + max(min(ahead, 2 * self.config.queue_depth), 0))

    def _ready(self, engine: Engine, arrival: int) -> int:
        """When the engine holds its next instruction."""
        ready = max(arrival + t.LOAD_INSTRUCTION, self.free[engine] + t.next_cycles(self.config))
        self._queues[engine].append(ready)
        return ready

    def _hazards(self, i: Instruction, engine: Engine) -> int:
        """When everything is done that an engine's part of an instruction depends on."""
        time = 0
        for access in accesses(self.config, i):
            if access.engine is engine:
                for block in access.reads:
                    time = max(time, _latest(self._written, block))
                for block in access.writes:
                    time = max(time, _latest(self._written, block), _latest(self._read, block))
        return time

    def _finish(
        self,
        i: Instruction,
        engine: Engine,
        ready: int,
        start: int,
        end: int,
        waits: dict[Reason, int] | None = None,
    ) -> None:
        """Records an engine's part of an instruction."""
        for access in accesses(self.config, i):
            if access.engine is engine:
                for block in access.reads:
                    rows = _rows(self._read, block)
                    np.maximum(rows, end, out=rows)
                for block in access.writes:
                    _rows(self._written, block)[...] = end
        reasons = {
            Reason.QUEUE: ready - self.free[engine],
            Reason.SEMAPHORE: start - ready,
            **(waits or {}),
        }
        self.free[engine] = self.last_end = end
        self.spans.append(
            Span(engine, self._index, ready, start, end, {r: w for r, w in reasons.items() if w})
        )

    # ------------------------------------------------------------------------------- engines

    def _dma(self, i: Instruction, start: int) -> int:
        config = self.config
        size = i["words"] * config.word_bytes
        if not i["rows"] or not size:
            return start + 3
        store = i.opcode is Opcode.DMA_STORE
        offer = start + (t.DMA_STORE_START if store else t.DMA_START)
        end = offer
        for row in range(i["rows"]):
            address = i["dram_address"] + row * i["dram_stride"]
            last = address + size
            while address < last:
                self._fetch_beside(max(offer, self.bus.free))
                stop = min((address // config.burst_bytes + 1) * config.burst_bytes, last)
                end = self.bus.burst(offer, address, (stop - address) // config.bus_bytes)
                offer = max(offer + 3, end - 4 * config.burst_bytes // config.bus_bytes)
                address = stop
            offer = max(offer, end - 4 * config.burst_bytes // config.bus_bytes) + t.DMA_ROW - 3
            if store:
                offer = max(offer, end + t.DMA_STORE_ROW)
        return end + (t.DMA_STORE_LATENCY if store else self.latency + t.DMA_LOAD_LATENCY)

    def _load_b(self, i: Instruction, start: int) -> int:
        k_words = words_of(i["k"], 1, self.config.word_bytes)
        time = start + t.LOADER_LATENCY
        for first in range(0, i["n"], self.config.cols):
            time = max(time, self.ring_b.take(k_words))
            time += min(self.config.cols, i["n"] - first) * k_words
            self._tiles.append(time)
        return time

    def _load_p(self, i: Instruction, start: int) -> int:
        words = words_of(i["count"], 8, self.config.word_bytes)
        time = max(start, self.ring_p.take(words)) + t.PARAMETER_LATENCY
        time += t.PARAMETER_CYCLES * words
        self._records.append((time, words))
        return time

    def _gemm(self, i: Instruction, arrivals: dict[Engine, int]) -> None:
        config = self.config
        k_words = words_of(i["k"], 1, config.word_bytes)
        tile = t.tile_cycles(config, i["k"])
        drain = t.epilogue_tile_cycles(config, i)
        count = -(-i["n"] // config.cols)
        tiles = [self._tiles[n] for n in range(count)]

        ready_a = self._ready(Engine.LOAD_A, arrivals[Engine.LOAD_A])
        start_a = max(ready_a, self._hazards(i, Engine.LOAD_A))
        ready_e = self._ready(Engine.EPILOGUE, arrivals[Engine.EPILOGUE])
        start_e = max(ready_e, self._hazards(i, Engine.EPILOGUE))
        records, words = self._records[0]
        ready = max(arrivals[Engine.ARRAY] + t.LOAD_INSTRUCTION, self.free[Engine.ARRAY])
        self._queues[Engine.ARRAY].append(ready)

        loaded = start_a + t.LOADER_LATENCY
        taken = max(start_e + t.EPILOGUE_START, records)
        array = max(self.array_end, ready)
        waits = dict.fromkeys((Reason.OPERAND, Reason.DRAIN), 0)
        most = max(config.accumulator_tiles // 2, 1)
        for first in range(0, i["m"], config.rows):
            loaded = max(loaded, self.ring_a.take(k_words))
            loaded += min(config.rows, i["m"] - first) * k_words
            # All tiles of a group after each other, each no sooner than its rows of B are there.
            begin = max(array, loaded)
            for n, complete in enumerate(tiles):
                begin = max(begin, complete - n * tile)
            waits[Reason.OPERAND] += begin - array
            for done in range(0, count, most):
                # A tile needs a slot; the epilogue gives one back every `drain` cycles.
                some = min(most, count - done)
                free = self.slots.take(some) - (some - 1) * tile
                waits[Reason.DRAIN] += max(free - begin, 0)
                begin = max(begin, free)
                array = begin + some * tile
                taken = max(taken, begin + tile + t.ARRAY_LATENCY)
                first_taken = taken
                taken = max(taken + some * drain, array + t.ARRAY_LATENCY + drain)
                self.slots.give(some, first_taken, taken)
                begin = array
            self.ring_a.give(k_words, array - tile, array)
        if i["release_b"]:
            self.ring_b.give(count * k_words, array - count * tile, array)
            for _ in range(count):
                self._tiles.popleft()
        self.array_end = array
        full = loaded - start_a - i["m"] * k_words - t.LOADER_LATENCY
        self._finish(i, Engine.LOAD_A, ready_a, start_a, loaded, {Reason.OPERAND: full})
        self._finish(i, Engine.ARRAY, ready, ready, array, waits)
        end = taken + t.EPILOGUE_LATENCY
        groups = -(-i["m"] // config.rows)
        empty = max(end - start_e - groups * count * drain - t.EPILOGUE_LATENCY, 0)
        self._finish(i, Engine.EPILOGUE, ready_e, start_e, end, {Reason.OPERAND: empty})
        if i["release_p"]:
            self._records.popleft()
            self.ring_p.give(words, end, end)


def _rows(words: np.ndarray, block: Block) -> np.ndarray:
    """The words of a block: [rows, words]."""
    if block.rows == 1:
        return words[None, block.address : block.address + block.words]
    step = words.strides[0]
    return np.lib.stride_tricks.as_strided(
        words[block.address :], (block.rows, block.words), (block.stride * step, step)
    )


def _latest(times: np.ndarray, block: Block) -> int:
    return int(_rows(times, block).max())
