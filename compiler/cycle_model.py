"""Predicts the cycles of a program, engine by engine, at the grain of groups of rows."""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from gateformer.compiler import timing as t
from gateformer.compiler.accesses import Access, Block, accesses
from gateformer.compiler.dma_model import transfer
from gateformer.compiler.dram_bus import DramBus
from gateformer.compiler.layout import words_of
from gateformer.compiler.port_model import PortModel
from gateformer.compiler.ring_model import Ring
from gateformer.compiler.sequencer_model import SequencerModel
from gateformer.compiler.timeline import Reason, Span, Timeline
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming
from gateformer.spec.isa import FORMATS, Engine, Format, Instruction, Opcode


def predict(
    config: AcceleratorConfig, program: Iterable[Instruction], timing: DramTiming = SDRAM
) -> Timeline:
    """What every engine does when, from start to done."""
    program = tuple(program)
    machine = CycleModel(config, timing, program)
    for instruction in program:
        machine.issue(instruction)
    return machine.timeline()


def predict_cycles(config: AcceleratorConfig, program: Iterable[Instruction]) -> int:
    """Cycles from start to done."""
    return predict(config, program).cycles


_LEAST_A, _LEAST_B = 0.5, 0.25
"""The least part of local memory's read port that a loader gets beside others."""
_INSIDE = {Engine.DMA: Reason.DRAM}
"""What an engine waits for while it runs, where it is not an operand."""


class CycleModel:
    """All engines in time. Instructions come in program order; tokens are implied by the words that
    they read and write, so semaphore masks need not be there yet."""

    def __init__(
        self,
        config: AcceleratorConfig,
        timing: DramTiming = SDRAM,
        program: Sequence[Instruction] | None = None,
    ) -> None:
        """program: all instructions that will be issued; None where these are not known yet."""
        self.config = config
        self.bus = DramBus(timing, turns=config.memory_ports == 1)
        engines = None if program is None else [FORMATS[i.opcode].engines for i in program]
        self.sequencer = SequencerModel(config, self.bus, engines)
        self.port = PortModel()
        self._parts: dict[Engine, Access] = {}
        """What the engines of the present instruction read and write."""
        self.free = dict.fromkeys(Engine, 0)
        """When an engine completed its last instruction."""
        self.spans: list[Span] = []
        self._index = 0
        self._begun = dict.fromkeys(Engine, 0)
        """When an engine began its last instruction."""
        self._written = np.zeros(config.local_words, np.int64)
        self._read = np.zeros(config.local_words, np.int64)
        self._awaited = np.zeros(config.local_words, np.int64)
        """For each word, how many LOAD_B must be done before it may be overwritten."""
        self._waiting: deque[tuple[int, Instruction, Access | None, int, int]] = deque()
        """LOAD_B that no time was found for yet: index, instruction, what it reads, when it is at
        the engine and when its operands are there."""
        self.ring_a = Ring(config.a_depth)
        self.ring_b = Ring(config.b_depth)
        self.ring_p = Ring(config.p_depth * 8 // config.word_bytes)
        self.slots = Ring(config.accumulator_tiles)
        self._tiles: deque[int] = deque()
        """When each tile of B in the ring that no product has used is complete."""
        self._loaded = 0
        """LOAD_B that were run."""
        self._records: deque[tuple[int, int]] = deque()
        """Blocks of scale records: when complete, words."""
        self.array_end = 0
        """When the array's last tile so far ends."""
        self.last_end = 0
        """When the last instruction so far is complete."""

    def timeline(self) -> Timeline:
        """The record of everything issued so far."""
        self._load_b(len(self._waiting))
        end = max(self.free.values()) + 20
        return Timeline(tuple(self.spans), end, self.bus.beats, self.bus.occupied)

    def wait_for(self, address: int, count: int) -> int:
        """Cycles that the DMA engine would wait before it may write words of local memory, as far
        as that is known."""
        words = slice(address, address + count)
        used = int(max(self._written[words].max(), self._read[words].max()))
        return max(used - self.free[Engine.DMA], 0)

    # -------------------------------------------------------------------------- instructions

    def issue(self, i: Instruction) -> None:
        """Runs one instruction, the next of the program."""
        engines = FORMATS[i.opcode].engines
        if Engine.LOAD_B in engines:
            self._load_b(self.sequencer.must_leave(Engine.LOAD_B) - self._loaded)
        arrivals = self.sequencer.dispatch(engines)
        self._parts = {access.engine: access for access in accesses(self.config, i)}
        if i.opcode is Opcode.GEMM:
            self._gemm(i, arrivals)
        elif i.opcode is Opcode.LOAD_B:
            self._await(i, arrivals[Engine.LOAD_B])
        elif engines:
            (engine,) = engines
            ready = self._ready(engine, arrivals[engine])
            start = self._start(engine, ready)
            match i.opcode:
                case Opcode.DMA_LOAD | Opcode.DMA_STORE:
                    end = transfer(self.config, self.bus, self.sequencer, i, start)
                case Opcode.LOAD_P:
                    end = self._load_p(i, start)
                case _:
                    end = start + self._work(i)
            still = max(end - start - self._work(i), 0)
            self._finish(engine, (ready, start, end), {_INSIDE.get(engine, Reason.OPERAND): still})
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
                outputs = i["write8"] + i["write16"]
                return t.norm_cycles(config, i["rows"], i["channels"], outputs)
        return t.table_cycles(config, i.opcode, i["count"])

    def _ready(self, engine: Engine, arrival: int) -> int:
        """When the engine holds its next instruction."""
        self.sequencer.left[engine].append(max(arrival, self._begun[engine]))
        return max(arrival, self.free[engine] + t.next_cycles(self.config))

    def _start(self, engine: Engine, ready: int) -> int:
        """When an engine has the tokens for its part of an instruction that it holds."""
        done = self._hazards(engine)
        return max(ready, done + t.TOKEN if done > self.free[engine] else 0)

    def _hazards(self, engine: Engine) -> int:
        """When everything is done that an engine's part of the instruction depends on."""
        time = 0
        if (access := self._parts.get(engine)) is None:
            return time
        for block in access.reads:
            time = max(time, _latest(self._written, block))
        for block in access.writes:
            if self._waiting:
                self._load_b(_latest(self._awaited, block) - self._loaded)
            time = max(time, _latest(self._written, block), _latest(self._read, block))
        return time

    def _finish(
        self,
        engine: Engine,
        times: tuple[int, int, int],
        waits: dict[Reason, int],
        *,
        access: Access | None = None,
        index: int | None = None,
    ) -> None:
        """Records an engine's part of an instruction: when it was at the engine, began and ended.
        access, index: of an instruction that is not the present one."""
        ready, start, end = times
        if index is None:
            access, index = self._parts.get(engine), self._index
        if access is not None:
            words = 0
            for block in access.reads:
                rows = _rows(self._read, block)
                np.maximum(rows, end, out=rows)
                words += block.rows * block.words
            for block in access.writes:
                _rows(self._written, block)[...] = end
            self.port.spread(start, end, words)
        reasons = {
            Reason.QUEUE: ready - self.free[engine],
            Reason.SEMAPHORE: start - ready,
            **waits,
        }
        self._begun[engine] = start
        self.free[engine] = self.last_end = end
        self.spans.append(
            Span(engine, index, ready, start, end, {r: w for r, w in reasons.items() if w})
        )

    # ------------------------------------------------------------------------------- engines

    def _await(self, i: Instruction, arrival: int) -> None:
        """Puts a LOAD_B off until something depends on it: then more is known of what the other
        engines, which are more urgent, read in its time."""
        access = self._parts.get(Engine.LOAD_B)
        done = self._hazards(Engine.LOAD_B)
        self._waiting.append((self._index, i, access, arrival, done))
        for block in access.reads if access else ():
            _rows(self._awaited, block)[...] = self._loaded + len(self._waiting)

    def _load_b(self, count: int) -> None:
        """Runs so many of the LOAD_B that were put off."""
        for _ in range(count):
            index, i, access, arrival, done = self._waiting.popleft()
            self._loaded += 1
            ready = self._ready(Engine.LOAD_B, arrival)
            start = max(ready, done + t.TOKEN)
            k_words = words_of(i["k"], 1, self.config.word_bytes)
            time = start + t.LOADER_LATENCY
            for first in range(0, i["n"], self.config.cols):
                words = min(self.config.cols, i["n"] - first) * k_words
                time = max(time, self.ring_b.take(k_words))
                time += words + self.port.late(time, words, _LEAST_B)
                self._tiles.append(time)
            still = max(time - start - self._work(i), 0)
            self._finish(
                Engine.LOAD_B,
                (ready, start, time),
                {Reason.OPERAND: still},
                access=access,
                index=index,
            )

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
        behind, latency = t.ring_latency(config), t.array_latency(config)
        count = -(-i["n"] // config.cols)
        while len(self._tiles) < count:
            self._load_b(1)
        tiles = [self._tiles[n] for n in range(count)]

        ready_a = self._ready(Engine.LOAD_A, arrivals[Engine.LOAD_A])
        start_a = self._start(Engine.LOAD_A, ready_a)
        ready_e = self._ready(Engine.EPILOGUE, arrivals[Engine.EPILOGUE])
        start_e = self._start(Engine.EPILOGUE, ready_e)
        records, words = self._records[0]
        ready = max(arrivals[Engine.ARRAY], self.free[Engine.ARRAY])
        left = max(arrivals[Engine.ARRAY], self._begun[Engine.ARRAY])
        self.sequencer.left[Engine.ARRAY].append(left)

        loaded = start_a + t.LOADER_LATENCY
        loaded += self.port.late(loaded, i["m"] * k_words, _LEAST_A)
        taken = max(start_e + t.EPILOGUE_START, records)
        array = max(self.array_end, ready)
        waits = dict.fromkeys((Reason.OPERAND, Reason.DRAIN), 0)
        most = max(config.accumulator_tiles // 2, 1)
        work = 0
        for first in range(0, i["m"], config.rows):
            loaded = max(loaded, self.ring_a.take(k_words))
            loaded += min(config.rows, i["m"] - first) * k_words
            drain = t.epilogue_tile_cycles(
                config,
                columns=i["n"],
                wide=i["format"] == Format.INT32,
                residual=bool(i["residual"]),
                addend=bool(i["addend"]),
                rows=min(config.rows, i["m"] - first),
            )
            # All tiles of a group after each other, each no sooner than its rows of B are there.
            begin = max(array, loaded + behind)
            for n, complete in enumerate(tiles):
                begin = max(begin, complete + behind - n * tile)
            waits[Reason.OPERAND] += begin - array
            for done in range(0, count, most):
                # A tile needs a slot; the epilogue gives one back every `drain` cycles.
                some = min(most, count - done)
                free = self.slots.take(some) - (some - 1) * tile
                waits[Reason.DRAIN] += max(free - begin, 0)
                begin = max(begin, free)
                array = begin + some * tile
                taken = max(taken, begin + tile + latency)
                first_taken = taken
                taken = max(taken + some * drain, array + latency + drain)
                self.slots.give(some, first_taken, taken)
                begin = array
            work += count * drain
            self.ring_a.give(k_words, array - tile, array)
        if i["release_b"]:
            self.ring_b.give(count * k_words, array - count * tile, array)
            for _ in range(count):
                self._tiles.popleft()
        self.array_end = array
        full = loaded - start_a - i["m"] * k_words - t.LOADER_LATENCY
        self._finish(Engine.LOAD_A, (ready_a, start_a, loaded), {Reason.OPERAND: full})
        self._finish(Engine.ARRAY, (ready, ready, array), waits)
        end = taken + t.EPILOGUE_LATENCY
        empty = max(end - start_e - work - t.EPILOGUE_LATENCY, 0)
        self._finish(Engine.EPILOGUE, (ready_e, start_e, end), {Reason.OPERAND: empty})
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
