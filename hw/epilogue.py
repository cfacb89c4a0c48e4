"""The epilogue: from sums of the array to masked words of local memory."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from gateformer.hw.accumulator_buffer import SUMS_LATENCY, AccumulatorRead
from gateformer.hw.activation import Activation
from gateformer.hw.epilogue_address import EpilogueAddress
from gateformer.hw.epilogue_lane import ScalingLane
from gateformer.hw.epilogue_operands import EpilogueOperands
from gateformer.hw.epilogue_pack import WordPacker
from gateformer.hw.epilogue_queue import Outstanding, Queue
from gateformer.hw.epilogue_walk import EpilogueWalk, Kind, column_layout
from gateformer.hw.interfaces import InstructionPort, LocalRead, LocalWrite, local_read_latency
from gateformer.hw.parameter_loader import ParameterLoader
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Engine, Format, Opcode


def _power_of_two(value: int) -> int:
    """The smallest power of two that is not below value."""
    return 1 << (value - 1).bit_length()


class Epilogue(Component):
    """Executes the output half of GEMM and ACTIVATION_TABLE, and LOAD_P beside them.

    A walk (`EpilogueWalk`) runs ahead of the columns and asks for operands and addresses. A column
    is issued when there is room for its output, its tile is complete and its operands have arrived;
    after that nothing stalls it. Lane l runs l cycles behind lane 0, so that the lanes share the
    queues of operands and of words without ever meeting there: pieces of the walk start and end at
    least epilogue_lanes cycles apart, or twice that when each brings two operands.

    One instruction at a time: the next one starts when the last write of this one was taken.
    `busy`: a column was issued in the cycle before.
    """

    instructions: Any
    load_p: Any
    read_p: Any
    tiles: Any
    read: Any
    write: Any
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
        m.submodules.parameters = parameters = ParameterLoader(config)
        m.submodules.walk = walk = EpilogueWalk(config)
        m.submodules.address = address = EpilogueAddress(config)
        m.submodules.operands = operands = EpilogueOperands(config)
        m.submodules.activation = activation = Activation(config)
        # A piece waits in the queue until the words asked for beside its last column are back.
        way = 9 + local_read_latency(config)
        depth = _power_of_two(way + min(config.cols, config.word_bytes // 2))
        m.submodules.columns = columns = Queue(column_layout(config), depth)
        connect(m, flipped(self.load_p), parameters.instructions)
        connect(m, flipped(self.read_p), parameters.read)
        connect(m, flipped(self.read), operands.read)

        instruction = self.instructions.stream.payload
        for unit in (walk, address, operands):
            m.d.comb += unit.instruction.eq(instruction)
        table = Signal()
        # An instruction is there two cycles before it starts.
        m.d.sync += table.eq(instruction.opcode == Opcode.ACTIVATION_TABLE)

        m.submodules.writes = writes = Outstanding(self._write_depth(activation))
        m.d.comb += [
            walk.record_base.eq(parameters.base),
            walk.column_room.eq(columns.room),
            walk.read_room.eq(operands.room),
            walk.write_room.eq(writes.room),
            columns.push.eq(walk.column_push),
            columns.data.eq(walk.column),
            operands.begin.eq(walk.wanted & (walk.kind != Kind.OUT)),
            writes.begin.eq(walk.wanted & (walk.kind == Kind.OUT)),
            writes.finish.eq(self.write.request.valid & self.write.request.ready),
            address.wanted.eq(walk.wanted),
            address.kind.eq(walk.kind),
            address.row.eq(walk.row),
            address.word.eq(walk.word),
            operands.push.eq(address.read),
            operands.address.eq(address.address),
        ]
        issue = self._issue(m, columns, operands, table)
        self._lanes(m, columns.head, issue, table, parameters, operands, activation, address)
        m.d.comb += [
            activation.fill_start.eq(walk.start & table),
            activation.fill_valid.eq(operands.table_valid),
            activation.fill_byte.eq(operands.table_byte),
            activation.lookup.eq(instruction.activation & ~table),
        ]
        m.d.sync += self.busy.eq(issue)
        done = ~walk.running & columns.empty & operands.none & writes.none
        self._control(m, walk, parameters, table, done)
        return m

    def _write_depth(self, activation: Activation) -> int:
        """Words under way: as many as are written in the time from an address to its write."""
        config = self.config
        lanes, width = config.epilogue_lanes, config.word_bytes
        time = 14 + 3 * local_read_latency(config) + activation.latency
        words = min(time, max(time * lanes // config.cols, time * 2 * lanes // width))
        return max(16, _power_of_two(words), _power_of_two(2 * lanes))

    def _control(
        self,
        m: Module,
        walk: EpilogueWalk,
        parameters: ParameterLoader,
        table: Value,
        done: Value,
    ) -> None:
        """Start, wait for the end, answer."""
        stream = self.instructions.stream
        instruction = stream.payload
        group = parameters.word_records
        records = Mux(instruction.by_row, instruction.m, instruction.n)
        blocks = Signal(13)
        m.d.comb += blocks.eq((records + (group - 1)) >> (group - 1).bit_length())
        loaded = Signal()
        nothing = Signal()
        m.d.sync += [
            loaded.eq((parameters.stored >= blocks) | table),
            nothing.eq(
                ~table & ((instruction.m == 0) | (instruction.n == 0) | (instruction.k == 0))
                | (table & (instruction.count == 0))
            ),
        ]
        m.d.comb += parameters.release_words.eq(blocks)
        with m.FSM():
            with m.State("IDLE"), m.If(stream.valid):
                m.next = "PREPARE"
            # A release before this instruction is in `stored` now, and in `loaded` a cycle later.
            with m.State("PREPARE"):
                m.next = "START"
            with m.State("START"), m.If(loaded):
                m.d.comb += walk.start.eq(~nothing)
                m.next = "RUN"
            with m.State("RUN"), m.If(done):
                m.next = "FINISH"
            with m.State("FINISH"):
                m.d.comb += stream.ready.eq(1)
                m.d.comb += parameters.release.eq(instruction.release_p & ~table)
                m.next = "IDLE"

    def _issue(self, m: Module, columns: Queue, operands: EpilogueOperands, table: Value) -> Signal:
        """Takes the next column from the queue when it can run; returns when that is."""
        config, instruction = self.config, self.instructions.stream.payload
        lanes = config.epilogue_lanes
        word_log = (config.word_bytes - 1).bit_length()
        column = columns.head
        issue = Signal()
        first = Signal(init=1)
        last = Signal()
        with_operands = Signal()
        distance = Signal(range(2 * lanes))
        both = instruction.addend & instruction.residual & ~table
        m.d.comb += last.eq(column.emit | (instruction.addend & column.low[: word_log - 2].all()))
        m.d.sync += [
            with_operands.eq(instruction.addend | instruction.residual | table),
            distance.eq(Mux(both, 2 * lanes - 1, lanes - 1)),
        ]
        since_first = Signal(range(2 * lanes))
        since_last = Signal(range(2 * lanes))
        for wait, mark in ((since_first, first), (since_last, last)):
            with m.If(issue & mark):
                m.d.sync += wait.eq(distance)
            with m.Elif(wait != 0):
                m.d.sync += wait.eq(wait - 1)
        m.d.comb += issue.eq(
            columns.valid
            & (self.tiles.tile_valid | table)
            & ~(first & ((with_operands & ~operands.enough) | (since_first != 0)))
            & ~(last & (since_last != 0))
        )
        with m.If(issue):
            m.d.sync += first.eq(last)
        m.d.comb += [
            columns.pop.eq(issue),
            self.tiles.set.eq(column.set),
            self.tiles.column.eq(column.column),
            self.tiles.release.eq(issue & column.release),
            operands.column.eq(issue),
            operands.use.eq(issue & first),
            operands.low.eq(column.low),
        ]
        return issue

    def _lanes(
        self,
        m: Module,
        column: data.View,
        issue: Signal,
        table: Signal,
        parameters: ParameterLoader,
        operands: EpilogueOperands,
        activation: Activation,
        address: EpilogueAddress,
    ) -> None:
        """Everything behind the issue: a pipeline that never stalls."""
        config, instruction = self.config, self.instructions.stream.payload
        lanes = config.epilogue_lanes
        wide = instruction.format == Format.INT16
        total = instruction.format == Format.INT32
        residual_time = operands.residual_latency - SUMS_LATENCY
        scaling = [ScalingLane(config, residual_time=residual_time) for _ in range(lanes)]
        times = {
            "total": SUMS_LATENCY + ScalingLane.TOTAL_TIME,
            "result": SUMS_LATENCY + scaling[0].result_time,
            "activation": SUMS_LATENCY + scaling[0].code_time + activation.latency,
        }
        layout = data.StructLayout(
            {"valid": 1, "emit": 1, "low": range(config.word_bytes), "lanes": lanes}
        )
        moving = [Signal(layout, name="moving_0")]
        m.d.comb += [
            moving[0].valid.eq(issue & ~table),
            moving[0].emit.eq(issue & column.emit & ~table),
            moving[0].low.eq(column.low),
            moving[0].lanes.eq(column.lanes),
        ]
        for time in range(1, max(*times.values(), lanes) + 1):
            moving.append(Signal(layout, name=f"moving_{time}"))
            m.d.sync += moving[time].eq(moving[time - 1])
            # What has left early is still under way when the next instruction leaves later.
            with m.If(self.instructions.stream.ready):
                m.d.sync += [moving[time].valid.eq(0), moving[time].emit.eq(0)]

        # The outputs leave the pipeline where they are ready: all of an instruction's at one place.
        leaving = Signal(layout)
        with m.If(total):
            m.d.comb += leaving.eq(moving[times["total"]])
        with m.Elif(instruction.activation):
            m.d.comb += leaving.eq(moving[times["activation"]])
        with m.Else():
            m.d.comb += leaving.eq(moving[times["result"]])
        taken = Signal(config.word_bytes)
        emit = Signal()
        exists = Signal(lanes, reset_less=True)
        m.d.sync += [
            taken.eq(Mux(leaving.valid, self._bytes(leaving.low), 0)),
            emit.eq(leaving.emit),
            exists.eq(leaving.lanes),
        ]

        record = column.record
        packers = []
        for lane, unit in enumerate(scaling):
            m.submodules[f"lane_{lane}"] = unit
            sum_ = self.tiles.sums[lane]
            for _ in range(lane):
                late = Signal.like(sum_, name=f"sum_{lane}_late", reset_less=True)
                m.d.sync += late.eq(sum_)
                sum_ = late
            late = Signal(range(config.p_depth), name=f"record_{lane}", reset_less=True)
            m.d.sync += late.eq(record if lane == 0 else self._next_record(record))
            record = late
            residual = operands.residuals[lane]
            for _ in range(unit.residual_time - residual_time):
                late = Signal.like(residual, name=f"residual_{lane}_late", reset_less=True)
                m.d.sync += late.eq(residual)
                residual = late
            now = moving[1 + lane]
            m.d.comb += [
                parameters.enable[lane].eq(now.valid & now.lanes[lane]),
                parameters.addresses[lane].eq(record),
                unit.sum.eq(sum_),
                unit.record.eq(parameters.records[lane]),
                unit.addend.eq(operands.addends[lane]),
                unit.residual.eq(residual),
                unit.activation.eq(instruction.activation),
                unit.wide.eq(wide),
                activation.codes[lane].eq(unit.code),
            ]

            m.submodules[f"packer_{lane}"] = packer = WordPacker(config)
            output = Signal(32, name=f"output_{lane}", reset_less=True)
            narrow = Mux(instruction.activation, activation.results[lane], unit.result)[:8]
            upper = Mux(wide, unit.result[8:], narrow)
            with m.If(total):
                m.d.sync += output.eq(unit.total)
            with m.Else():
                m.d.sync += output.eq(Cat(narrow, upper, narrow, upper))
            if lane:
                previous = taken, emit, exists
                taken, emit = Signal.like(taken), Signal.like(emit)
                exists = Signal.like(exists, reset_less=True)
                m.d.sync += [
                    signal.eq(old)
                    for signal, old in zip((taken, emit, exists), previous, strict=True)
                ]
            m.d.comb += [
                packer.output.eq(output),
                packer.bytes.eq(taken),
                packer.emit.eq(emit),
                packer.exists.eq(exists[lane]),
            ]
            packers.append(packer)
        self._write(m, packers, activation, address)

    def _bytes(self, low: Value) -> Value:
        """The bytes of a word that an output of the instruction's format takes."""
        options = []
        for size in Format:
            places = self.config.word_bytes >> size
            place = low[: (places - 1).bit_length()]
            options.append(Cat((place == i).replicate(1 << size) for i in range(places)))
        return Array(options)[self.instructions.stream.payload.format]

    def _next_record(self, record: Value) -> Value:
        """The record of the next lane: by row it is the next one, by column the same."""
        depth = self.config.p_depth
        by_row = self.instructions.stream.payload.by_row
        return Mux(by_row & (record == depth - 1), Const(0), record + by_row)

    def _write(
        self,
        m: Module,
        packers: list[WordPacker],
        activation: Activation,
        address: EpilogueAddress,
    ) -> None:
        """Words meet their addresses in front of the write port. Both queues hold what `writes`
        counts, so neither can overflow."""
        depth = self._write_depth(activation)
        layout = data.StructLayout(
            {"data": 8 * self.config.word_bytes, "mask": self.config.word_bytes}
        )
        m.submodules.words = words = Queue(layout, depth)
        m.submodules.addresses = addresses = Queue(16, depth)
        request = self.write.request
        m.d.comb += [
            words.push.eq(Cat(packer.push for packer in packers).any()),
            words.data.data.eq(packers[0].word),
            words.data.mask.eq(packers[0].mask),
            addresses.push.eq(address.write),
            addresses.data.eq(address.address),
            # A word's address is ready long before the word.
            request.valid.eq(words.valid),
            request.payload.address.eq(addresses.head),
            request.payload.data.eq(words.head.data),
            request.payload.mask.eq(words.head.mask),
            words.pop.eq(request.valid & request.ready),
            addresses.pop.eq(request.valid & request.ready),
        ]
        for packer in packers[1:]:
            with m.If(packer.push):
                m.d.comb += [
                    words.data.data.eq(packer.word),
                    words.data.mask.eq(packer.mask),
                ]
