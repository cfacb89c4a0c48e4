"""The epilogue in few logic cells: one output at a time, without a multiplier or a queue."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib.wiring import Out, connect, flipped

from gateformer.hw.accumulator_buffer import SUMS_LATENCY
from gateformer.hw.activation import Activation
from gateformer.hw.epilogue_lane import LANE_MODE
from gateformer.hw.epilogue_order import EpilogueOrder
from gateformer.hw.epilogue_pointers import ADDEND, OUT, RESIDUAL, EpiloguePointers
from gateformer.hw.epilogue_ports import EpiloguePorts
from gateformer.hw.epilogue_serial_lane import SerialLane
from gateformer.hw.epilogue_serial_parameters import SerialParameters
from gateformer.hw.interfaces import FieldPort
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.isa import Format, Opcode


class SerialEpilogue(EpiloguePorts):
    """`Epilogue` for config.multipliers == "serial"; one lane. `fields`: words 4 to 7 of the
    instruction, which it does not read from `instructions`.

    For each output: sum, bias and addend are added up 16 bits at a time while the lane works on the
    output before; then the lane gets the total, and meanwhile the output's address and residual are
    fetched. Each output is a write of its own. About 15 cycles an output, 2 more for each step of a
    selector above the first, 20 more with an addend; a byte of an activation's table takes 10.
    """

    fields: Any

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config, {"fields": Out(FieldPort())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        stream = self.instructions.stream
        instruction = stream.payload
        m.submodules.parameters = parameters = SerialParameters(config)
        m.submodules.order = order = EpilogueOrder(config)
        m.submodules.pointers = pointers = EpiloguePointers(config)
        m.submodules.activation = activation = Activation(config)
        m.submodules.lane = lane = SerialLane(config)
        connect(m, flipped(self.load_p), parameters.instructions)
        connect(m, flipped(self.read_p), parameters.read)
        connect(m, flipped(self.fields), pointers.fields)
        word_log = (config.word_bytes - 1).bit_length()

        table = Signal()
        residual = Signal()
        mode = Signal(LANE_MODE)
        narrow = Signal()
        nothing = Signal()
        is_table = instruction.opcode == Opcode.ACTIVATION_TABLE
        m.d.sync += [
            table.eq(is_table),
            residual.eq(instruction.residual),
            mode.activation.eq(instruction.activation & ~is_table),
            mode.total.eq(instruction.format == Format.INT32),
            mode.wide.eq(instruction.format != Format.INT8),
            narrow.eq(instruction.format == Format.INT8),
            nothing.eq(
                (instruction.m == 0) | (~is_table & ((instruction.n == 0) | (instruction.k == 0)))
            ),
        ]

        # The total: each addition takes the low half, and leaves the sum as the upper one.
        halves = Signal(32, reset_less=True)
        carry = Signal(reset_less=True)
        operand = Signal(16)
        added = Signal(17)
        add = Signal()
        odd = Signal()
        element = Signal(16, reset_less=True)
        sums = Signal(32)
        m.d.comb += [
            sums.eq(self.tiles.sums[0]),
            added.eq(halves[:16] + operand + (carry & odd)),
            lane.total.eq(halves),
        ]
        with m.If(add):
            m.d.sync += [halves.eq(Cat(halves[16:], added[:16])), carry.eq(added[16])]

        # What is fetched, and the 16 bits of its word.
        kind = Signal(2)
        upper = Signal()
        part = Signal(word_log - 1)
        ends = [order.j[: word_log - size].all() for size in Format]
        out_end = Array(ends)[instruction.format]
        with m.Switch(kind):
            with m.Case(OUT):
                m.d.comb += pointers.step.eq(out_end)
            with m.Case(RESIDUAL):
                m.d.comb += pointers.step.eq(Mux(table, ends[Format.INT8], ends[Format.INT16]))
                m.d.comb += part.eq(Mux(table, order.j[1:], order.j))
            with m.Default():
                m.d.comb += pointers.step.eq(ends[Format.INT32] & upper)
                m.d.comb += part.eq(Cat(upper, order.j))
        words = [self.read.response.word_select(i, 16) for i in range(1 << len(part))]
        with m.If(self.read.response_valid):
            m.d.sync += element.eq(Array(words)[part])

        address = Signal(16, reset_less=True)
        place = Signal(word_log, reset_less=True)
        ready = Signal()
        wait = Signal(range(8))
        multiplier = Signal(16, reset_less=True)
        selector = Signal(2, reset_less=True)
        m.d.comb += [
            parameters.records.eq(Mux(instruction.by_row, instruction.m, instruction.n)),
            parameters.record.eq(Mux(instruction.by_row, order.row, order.j)),
            order.instruction.eq(instruction),
            pointers.instruction.eq(instruction),
            pointers.kind.eq(kind),
            pointers.row.eq(order.set),
            self.tiles.column.eq(order.column),
            self.tiles.set.eq(order.set),
            self.read.request.payload.eq(pointers.pointer),
            activation.codes[0].eq(lane.code),
            activation.lookup.eq(mode.activation),
            activation.fill_byte.eq(element.word_select(order.j[0], 8)),
            lane.mode.eq(mode),
            lane.multiplier.eq(multiplier),
            lane.selector.eq(selector),
            lane.residual.eq(element.as_signed()),
            lane.residual_valid.eq(ready),
            lane.activated.eq(activation.results[0]),
        ]

        m.d.sync += self.busy.eq(lane.start)
        with m.FSM():
            with m.State("IDLE"), m.If(stream.valid):
                m.next = "PREPARE"
            with m.State("PREPARE"):
                m.next = "START"
            with m.State("START"), m.If(parameters.loaded | table):
                m.next = "FINISH"
                with m.If(~nothing):
                    m.d.comb += [
                        order.start.eq(1),
                        pointers.begin.eq(1),
                        activation.fill_start.eq(table),
                    ]
                    m.next = "ROWS"
            with m.State("ROWS"):
                m.d.sync += [wait.eq(0), kind.eq(RESIDUAL)]
                with m.If(~pointers.busy):
                    m.next = "SUM"
                    with m.If(table):
                        m.next = "FETCH"
            # Sum and bias.
            with m.State("SUM"):
                with m.If(self.tiles.tile_valid):
                    m.d.sync += wait.eq(wait + 1)
                with m.If(wait == SUMS_LATENCY):
                    m.d.sync += [halves.eq(sums), wait.eq(0)]
                    m.next = "BIAS"
            with m.State("BIAS"):
                m.d.comb += [
                    parameters.part.eq(wait),
                    operand.eq(parameters.value),
                    odd.eq(wait[1]),
                    add.eq(wait != 0),
                ]
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == 2):
                    m.d.sync += [kind.eq(ADDEND), upper.eq(0), wait.eq(0)]
                    m.next = "SCALE"
                    with m.If(instruction.addend):
                        m.next = "ADDEND"
            with m.State("ADDEND"), m.If(lane.idle):
                m.next = "FETCH"
            with m.State("ADD"):
                m.d.comb += [operand.eq(element), odd.eq(upper), add.eq(1)]
                m.d.sync += upper.eq(1)
                m.next = "FETCH"
                with m.If(upper):
                    m.next = "SCALE"
            # Multiplier and selector; then the lane has all it needs but the residual.
            with m.State("SCALE"), m.If(lane.idle):
                m.d.comb += parameters.part.eq(2 | wait)
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == 1):
                    m.d.sync += multiplier.eq(Mux(mode.total, 1, parameters.value))
                with m.If(wait == 2):
                    m.d.sync += [selector.eq(parameters.value), ready.eq(0), kind.eq(OUT)]
                    m.next = "LANE"
            with m.State("LANE"):
                m.d.comb += lane.start.eq(1)
                m.next = "FETCH"
            # A pointer, and what it points to.
            with m.State("FETCH"):
                m.d.comb += pointers.fetch.eq(1)
                m.next = "POINTER"
            with m.State("POINTER"):
                m.next = "POINTED"
            with m.State("POINTED"):
                m.next = "ASK"
                with m.If(kind == OUT):
                    m.next = "PLACE"
            with m.State("PLACE"):
                m.d.sync += [
                    address.eq(pointers.pointer),
                    place.eq(Mux(mode.total, order.j << 1, order.j)),
                    kind.eq(RESIDUAL),
                ]
                m.next = "FETCH"
                with m.If(~residual):
                    m.d.sync += [element.eq(0), ready.eq(1)]
                    m.next = "ADVANCE"
            with m.State("ASK"):
                m.d.comb += self.read.request.valid.eq(1)
                with m.If(self.read.request.ready):
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(self.read.response_valid):
                m.next = "ADD"
                with m.If(kind == RESIDUAL):
                    m.d.sync += ready.eq(1)
                    m.next = "ADVANCE"
            with m.State("ADVANCE"):
                m.d.comb += [
                    activation.fill_valid.eq(table),
                    order.advance.eq(1),
                    self.tiles.release.eq(order.last_column & order.last_set & ~table),
                    pointers.next_group.eq(order.group_last & ~order.last),
                ]
                m.next = "ROWS"
                with m.If(order.last):
                    m.next = "DRAIN"
            with m.State("DRAIN"), m.If(lane.idle):
                m.next = "FINISH"
            with m.State("FINISH"):
                m.d.comb += [
                    stream.ready.eq(1),
                    parameters.release.eq(instruction.release_p & ~table),
                ]
                m.next = "IDLE"

        # The write: the output all over the word, and the bytes that it takes.
        written = self.write.request.valid & self.write.request.ready
        with m.If(written):
            m.d.sync += place[0].eq(1)
        m.d.comb += [
            self.write.request.valid.eq(lane.done),
            self.write.request.payload.address.eq(address),
            self.write.request.payload.data.eq(lane.output.replicate(config.word_bytes // 2)),
            self.write.request.payload.mask.eq(
                Cat(
                    Mux(narrow, place == i, place[: word_log - 1] == i // 2)
                    for i in range(config.word_bytes)
                )
            ),
            lane.next.eq(written),
        ]
        return m
