"""The epilogue as a pipeline: an output a cycle in each lane."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import connect, flipped

from gateformer.hw.accumulator_buffer import SUMS_LATENCY
from gateformer.hw.activation import Activation
from gateformer.hw.epilogue_address import EpilogueAddress
from gateformer.hw.epilogue_lane import ScalingLane
from gateformer.hw.epilogue_operands import EpilogueOperands
from gateformer.hw.epilogue_pack import WordPacker
from gateformer.hw.epilogue_pipeline import delayed
from gateformer.hw.epilogue_ports import EpiloguePorts
from gateformer.hw.epilogue_queue import Outstanding, Queue
from gateformer.hw.epilogue_walk import EpilogueWalk, beat_layout
from gateformer.hw.parameter_loader import ParameterLoader
from gateformer.spec.isa import Format, Opcode

_BEATS = 16
"""Beats that wait for their operands: as many as pass from a request to its word. They bound the
words asked for, too: a beat asks for one at most, which is taken in the cycle after its issue."""


def _power_of_two(value: int) -> int:
    """The smallest power of two that is not below value."""
    return 1 << (value - 1).bit_length()


class ParallelEpilogue(EpiloguePorts):
    """`Epilogue` for config.multipliers == "dsp".

    A walk (`EpilogueWalk`) runs ahead of the columns and asks for operands and addresses. A beat of
    it is issued when its tile is complete and the word that it takes has arrived; after that
    nothing stalls it. Lane l runs l cycles behind lane 0, so that the lanes share the queues of
    operands and of words without ever meeting there.

    An output takes a cycle of its lane, an INT32 two.

    `busy`: a column was issued in the cycle before.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.parameters = parameters = ParameterLoader(config)
        m.submodules.walk = walk = EpilogueWalk(config)
        m.submodules.address = address = EpilogueAddress(config)
        m.submodules.operands = operands = EpilogueOperands(config)
        m.submodules.activation = activation = Activation(config)
        m.submodules.beats = beats = Queue(beat_layout(config), _BEATS)
        m.submodules.waiting = waiting = Outstanding(_BEATS)
        connect(m, flipped(self.load_p), parameters.instructions)
        connect(m, flipped(self.read_p), parameters.read)
        connect(m, flipped(self.read), operands.read)

        instruction = self.instructions.stream.payload
        for unit in (walk, address, operands):
            m.d.comb += unit.instruction.eq(instruction)
        table = Signal()
        # An instruction is there two cycles before it starts.
        m.d.sync += table.eq(instruction.opcode == Opcode.ACTIVATION_TABLE)

        lanes = [
            ScalingLane(config, activation_latency=activation.latency)
            for _ in range(config.epilogue_lanes)
        ]
        latency = SUMS_LATENCY + lanes[0].output_time
        m.submodules.writes = writes = Outstanding(self._write_depth(latency))
        m.d.comb += [
            walk.record_base.eq(parameters.base),
            walk.room.eq(waiting.room & writes.room),
            beats.push.eq(walk.push),
            beats.data.eq(walk.beat),
            waiting.begin.eq(walk.step),
            waiting.finish.eq(beats.pop),
            writes.begin.eq(walk.wanted & walk.kind.out),
            address.wanted.eq(walk.wanted),
            address.ends.eq(walk.ends),
            address.kind.eq(walk.kind),
            address.row.eq(walk.row),
            address.column.eq(walk.j),
            operands.push.eq(address.read),
            operands.last.eq(address.last),
            operands.address.eq(address.address),
        ]
        # A cycle late, for the way from local memory is long.
        m.d.sync += writes.finish.eq(self.write.request.valid & self.write.request.ready)
        visit = self._issue(m, beats, operands, table)
        words = self._lanes(m, beats.head, visit & ~table, lanes, parameters, operands, activation)
        self._write(m, words, address, writes.limit)
        m.d.comb += activation.lookup.eq(instruction.activation & ~table)
        m.d.sync += [
            activation.fill_start.eq(walk.start & table),
            activation.fill_valid.eq(operands.table_valid),
            activation.fill_byte.eq(operands.table_byte),
        ]
        m.d.sync += self.busy.eq(visit)
        done = ~walk.running & waiting.none & operands.none & writes.none
        self._control(m, walk, parameters, table, done)
        return m

    def _write_depth(self, latency: int) -> int:
        """Words under way: as many as are written from a step of the walk to its write."""
        config = self.config
        lanes, width = config.epilogue_lanes, config.word_bytes
        time = latency + 8
        words = min(time, max(time * lanes // config.cols, time * 2 * lanes // width))
        return max(16, _power_of_two(words))

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

    def _issue(self, m: Module, beats: Queue, operands: EpilogueOperands, table: Value) -> Signal:
        """Takes the next beat when it can run; returns 1 while it visits a column."""
        beat = beats.head
        ready = Signal()
        issue = Signal()
        visit = Signal()
        m.d.comb += [
            ready.eq(beats.valid & (operands.available | ~(beat.load_addend | beat.load_residual))),
            issue.eq(ready & (self.tiles.tile_valid | ~beat.visit | table)),
            visit.eq(issue & beat.visit),
            beats.pop.eq(issue),
            self.tiles.set.eq(beat.set),
            self.tiles.column.eq(beat.column),
            self.tiles.release.eq(issue & beat.release),
            operands.visit.eq(visit),
            operands.low.eq(beat.low),
            operands.lanes.eq(beat.lanes),
            operands.load_addend.eq(issue & beat.load_addend),
            operands.load_residual.eq(issue & beat.load_residual),
        ]
        return visit

    def _lanes(
        self,
        m: Module,
        beat: data.View,
        valid: Value,
        lanes: list[ScalingLane],
        parameters: ParameterLoader,
        operands: EpilogueOperands,
        activation: Activation,
    ) -> list[tuple[Value, Value, Value]]:
        """Everything behind the issue: a pipeline that never stalls.

        Returns for each lane (whether a word is complete, its data, its mask).
        """
        config, instruction = self.config, self.instructions.stream.payload
        mode = Signal(lanes[0].mode.shape())
        narrow = Signal()
        m.d.sync += [
            mode.activation.eq(instruction.activation),
            mode.total.eq(instruction.format == Format.INT32),
            mode.wide.eq(instruction.format != Format.INT8),
            narrow.eq(instruction.format == Format.INT8),
        ]
        layout = data.StructLayout(
            {"valid": 1, "emit": 1, "low": range(config.word_bytes), "lanes": len(lanes)}
        )
        moving = [Signal(layout, name="moving_0")]
        m.d.comb += [
            moving[0].valid.eq(valid),
            moving[0].emit.eq(valid & beat.emit),
            moving[0].low.eq(beat.low),
            moving[0].lanes.eq(beat.lanes),
        ]
        last = SUMS_LATENCY + lanes[0].output_time
        for time in range(1, last + len(lanes)):
            moving.append(Signal(layout, name=f"moving_{time}"))
            m.d.sync += moving[time].eq(moving[time - 1])

        taken: Value = Signal(config.word_bytes)
        mask: Value = Signal(config.word_bytes, reset_less=True)
        emitted = Signal()
        leaving = moving[last - 1]
        m.d.sync += [
            taken.eq(Mux(leaving.valid, self._bytes(leaving.low, narrow), 0)),
            emitted.eq(moving[last].emit),
            mask.eq(taken | Mux(emitted, 0, mask)),
        ]
        words: list[tuple[Value, Value, Value]] = []
        record: Value = beat.record
        for lane, unit in enumerate(lanes):
            m.submodules[f"lane_{lane}"] = unit
            previous = record if lane == 0 else self._next_record(record)
            record = Signal(range(config.p_depth), name=f"record_{lane}", reset_less=True)
            residual_wait = SUMS_LATENCY + unit.RESIDUAL_TIME - operands.RESIDUAL_LATENCY
            m.d.sync += record.eq(previous)
            m.d.comb += [
                parameters.addresses[lane].eq(record),
                unit.sum.eq(delayed(m, self.tiles.sums[lane], lane, f"sum_{lane}")),
                unit.upper.eq(moving[SUMS_LATENCY + lane].low[0]),
                unit.record.eq(parameters.records[lane]),
                unit.addend.eq(operands.addends[lane]),
                unit.residual.eq(
                    delayed(m, operands.residuals[lane], residual_wait, f"residual_{lane}")
                ),
                unit.mode.eq(mode),
                activation.codes[lane].eq(unit.code),
                unit.activated.eq(activation.results[lane]),
            ]
            m.submodules[f"packer_{lane}"] = packer = WordPacker(config)
            m.d.comb += [packer.output.eq(unit.output), packer.bytes.eq(taken)]
            push = Signal(name=f"push_{lane}")
            exists = Signal(name=f"exists_{lane}", reset_less=True)
            m.d.sync += exists.eq(moving[last + lane].lanes[lane])
            m.d.comb += push.eq(emitted & exists)
            words.append((push, packer.word, mask))
            if lane + 1 < len(lanes):
                taken = delayed(m, taken, 1, f"taken_{lane}")
                mask = delayed(m, mask, 1, f"mask_{lane}")
                emitted = delayed(m, emitted, 1, f"emitted_{lane}")
        return words

    def _bytes(self, low: Value, narrow: Value) -> Value:
        """The bytes of a word that an output takes: one, or two of 16 bits."""
        result = []
        for i in range(self.config.word_bytes):
            result.append(Mux(narrow, low == i, low[: len(low) - 1] == i // 2))
        return Cat(result)

    def _next_record(self, record: Value) -> Value:
        """The record of the next lane: by row it is the next one, by column the same."""
        depth = self.config.p_depth
        by_row = self.instructions.stream.payload.by_row
        following = record + by_row
        return following if depth & (depth - 1) == 0 else Mux(following == depth, 0, following)

    def _write(
        self,
        m: Module,
        lanes: list[tuple[Value, Value, Value]],
        address: EpilogueAddress,
        depth: int,
    ) -> None:
        """Words meet their addresses in front of the write port. Both queues hold what `writes`
        counts, so neither can overflow."""
        layout = data.StructLayout(
            {"data": 8 * self.config.word_bytes, "mask": self.config.word_bytes}
        )
        m.submodules.words = words = Queue(layout, depth)
        m.submodules.addresses = addresses = Queue(16, depth)
        request = self.write.request
        m.d.comb += [
            words.push.eq(Cat(push for push, _, _ in lanes).any()),
            words.data.data.eq(lanes[0][1]),
            words.data.mask.eq(lanes[0][2]),
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
        for push, word, mask in lanes[1:]:
            with m.If(push):
                m.d.comb += [words.data.data.eq(word), words.data.mask.eq(mask)]
