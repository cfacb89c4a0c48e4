"""The epilogue: from sums of the array to masked words of local memory."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.accumulator_buffer import AccumulatorRead
from gateformer.hw.activation import Activation
from gateformer.hw.epilogue_address import EpilogueAddress
from gateformer.hw.epilogue_lane import ScalingLane
from gateformer.hw.epilogue_pack import WordPacker
from gateformer.hw.epilogue_queue import Outstanding, Queue
from gateformer.hw.epilogue_walk import EpilogueWalk, column_layout
from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite
from gateformer.hw.parameter_loader import ParameterLoader
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode

_SUMS = AccumulatorRead.SUMS_LATENCY
_POP = _SUMS - 1
"""Cycles from a column's issue to the pop of lane 0's first operand word."""


def _power_of_two(value: int) -> int:
    """The smallest power of two that is not below value."""
    return 1 << (value - 1).bit_length()


class Epilogue(Component):
    """Executes GEMM's output half and ACTIVATION_TABLE, and LOAD_P beside them.

    A walk (`EpilogueWalk`) runs ahead of the columns and asks for operands and addresses. A column
    is issued when it has room behind it, its tile is complete and its operands have arrived; after
    that nothing stalls it. Lane l runs l cycles behind lane 0, so that the lanes share the queues
    of operands and of words without ever meeting there; for that, the pieces of the walk start and
    end epilogue_lanes cycles apart at least (twice that when each brings two operands).

    One instruction at a time: the next one starts when the last write of this one was taken.
    """

    instructions: InstructionPort
    load_p: InstructionPort
    read_p: LocalRead
    tiles: AccumulatorRead
    read: LocalRead
    write: LocalWrite
    busy: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "instructions": Out(InstructionPort(Engine.EPILOGUE)),
                "load_p": Out(InstructionPort(Engine.LOAD_P)),
                "read_p": Out(LocalRead(config)),
                "tiles": In(AccumulatorRead(config)),
                "read": Out(LocalRead(config)),
                "write": Out(LocalWrite(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        lanes = config.epilogue_lanes
        instruction = self.instructions.stream.payload

        m.submodules.loader = loader = ParameterLoader(config)
        connect(m, flipped(self.load_p), loader.instructions)
        connect(m, flipped(self.read_p), loader.read)
        m.submodules.walk = walk = EpilogueWalk(config)
        # A piece waits in the queue until the reads that come with its last column are back.
        columns_depth = _power_of_two(12 + min(config.cols, config.word_bytes // 2))
        m.submodules.columns = columns = Queue(column_layout(config), columns_depth)
        m.d.comb += [
            walk.instruction.eq(instruction),
            walk.record_base.eq(loader.base),
            walk.column_room.eq(columns.room),
            columns.push.eq(walk.column_push),
            columns.data.eq(walk.column),
        ]
        issue = Signal()
        piece_first = Signal()
        idle = self._control(m, walk, loader, columns)

        words = self._operands(m, walk, issue & piece_first, idle)
        self._issue(m, columns, issue, piece_first, words.enough)
        return m
