"""The array and everything it needs: two loaders, two operand rings, control, accumulators."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, Out, connect, flipped

from gateformer.hw.accumulator_buffer import AccumulatorBuffer, AccumulatorRead
from gateformer.hw.array_control import ArrayControl
from gateformer.hw.feeder import Ring, ring_latency
from gateformer.hw.interfaces import InstructionPort, LocalRead, pipelined
from gateformer.hw.loader import Loader
from gateformer.hw.loader_lean import LeanLoader
from gateformer.hw.row_array import RowArray, broadcasts
from gateformer.hw.systolic_array import SystolicArray
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine


class ArrayEngine(Component):
    """The engines LOAD_A, LOAD_B and ARRAY, from local memory to the sums of tiles.

    `load_a`, `load_b`, `array`: their instructions. `read_a`, `read_b`: the loaders' reads.
    `tiles`: the sums, tile by tile in array order. `busy` is 1 in each cycle in which the array
    takes a step; at most one of `wait_a`, `wait_b`, `wait_drain` is 1 when a tile can not start for
    want of A, of B, or of room in the accumulator buffer.
    """

    load_a: Any
    load_b: Any
    array: Any
    read_a: Any
    read_b: Any
    tiles: Any
    busy: Signal
    wait_a: Signal
    wait_b: Signal
    wait_drain: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._array: Any = RowArray(config) if broadcasts(config) else SystolicArray(config)
        super().__init__(
            {
                "load_a": Out(InstructionPort(Engine.LOAD_A)),
                "load_b": Out(InstructionPort(Engine.LOAD_B)),
                "array": Out(InstructionPort(Engine.ARRAY)),
                "read_a": Out(LocalRead(config)),
                "read_b": Out(LocalRead(config)),
                "tiles": Out(AccumulatorRead(config)),
                "busy": Out(1),
                "wait_a": Out(1),
                "wait_b": Out(1),
                "wait_drain": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from `busy` of a tile's last step to `tiles.tile_valid`, if no tile is older."""
        config = self.config
        return ring_latency(config) + self._array.latency + config.cols - 1 + config.rows - 1 + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.control = control = ArrayControl(config)
        m.submodules.array = array = self._array
        m.submodules.accumulators = accumulators = AccumulatorBuffer(config)
        connect(m, flipped(self.array), control.instructions)
        connect(m, flipped(self.tiles), accumulators.tiles)

        sides = (
            ("a", Engine.LOAD_A, self.load_a, self.read_a, config.rows, config.a_depth),
            ("b", Engine.LOAD_B, self.load_b, self.read_b, config.cols, config.b_depth),
        )
        for name, engine, instructions, reads, banks, depth in sides:
            make: Any = Loader if pipelined(config) else LeanLoader
            loader = make(config, engine, banks=banks, depth=depth)
            skewed = not broadcasts(config)
            ring = Ring(config, banks=banks, depth=depth, skewed=skewed)
            m.submodules[f"loader_{name}"] = loader
            m.submodules[f"ring_{name}"] = ring
            connect(m, flipped(instructions), loader.instructions)
            connect(m, flipped(reads), loader.read)
            # A word is free once the last bank has read it: if skewed, banks - 1 cycles after the
            # first.
            release = getattr(control, f"{name}_release")
            for i in range(1, banks if skewed else 1):
                delayed = Signal(name=f"{name}_release_{i}")
                m.d.sync += delayed.eq(release)
                release = delayed
            m.d.comb += loader.release.eq(release)
            loaded, enable = loader.loaded, loader.write_enable
            position, word = loader.write_position, loader.write_data
            if pipelined(config) and name == "b":
                # The ring of B is all over the chip: it is written a cycle later.
                loaded = _register(m, loaded, "b_loaded")
                enable = _register(m, enable, "b_enable")
                position = _register(m, position, "b_position", reset_less=True)
                word = _register(m, word, "b_word", reset_less=True)
            m.d.comb += [
                getattr(control, f"{name}_loaded").eq(loaded),
                ring.write_enable.eq(enable),
                ring.write_position.eq(position),
                ring.write_data.eq(word),
                ring.read_position.eq(getattr(control, f"{name}_position")),
                ring.read_step.eq(control.step),
                getattr(array, name).eq(ring.operands),
            ]

        # A cycle late, for the way from the epilogue is long.
        m.d.sync += control.slot_released.eq(self.tiles.release)
        valid, last = control.valid, control.last
        for i in range(ring_latency(config)):
            valid_delayed = Signal(name=f"valid_{i}")
            last_delayed = Signal(name=f"last_{i}", reset_less=True)
            m.d.sync += [valid_delayed.eq(valid), last_delayed.eq(last)]
            valid, last = valid_delayed, last_delayed
        m.d.comb += [
            array.valid.eq(valid),
            array.last.eq(last),
            accumulators.sum_valid.eq(array.sum_valid),
            accumulators.sums.eq(array.sums),
            self.busy.eq(control.valid),
            self.wait_a.eq(control.wait_a),
            self.wait_b.eq(control.wait_b),
            self.wait_drain.eq(control.wait_drain),
        ]
        return m


def _register(m: Module, value: Signal, name: str, *, reset_less: bool = False) -> Signal:
    register = Signal.like(value, name=name, reset_less=reset_less)
    m.d.sync += register.eq(value)
    return register
