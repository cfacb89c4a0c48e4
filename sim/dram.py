"""External memory for simulation tops: an SDR SDRAM as the accelerator's port sees it."""

from amaranth.hdl import ClockSignal, Instance, Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from gateformer.hw.interfaces import DramRead, DramWrite
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming

READ_BUFFER = 64
"""Beats on their way from memory to the accelerator."""


class DramModel(wiring.Component):
    """One memory behind one bus: read and write bursts share its beats, reads before writes when
    both wait.

    The contents are in `dram_storage.v`, instance `storage`, array `array`, one entry a beat.
    `occupied`: a burst, a row miss or a refresh has the bus.
    `stall` keeps back bursts that are not yet taken and beats that are not yet offered. Bursts
    behave as `DramRead` and `DramWrite` say.
    """

    def __init__(
        self, config: AcceleratorConfig, *, size_bytes: int, timing: DramTiming = SDRAM
    ) -> None:
        self.config = config
        self.beats = size_bytes // config.bus_bytes
        self.timing = timing
        super().__init__(
            {
                "read": In(DramRead(config)),
                "write": In(DramWrite(config)),
                "stall": In(1),
                "occupied": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timing, width = self.timing, 8 * self.config.bus_bytes
        bits = (self.beats - 1).bit_length()
        low = (self.config.bus_bytes - 1).bit_length()
        read, write = self.read, self.write

        address, left = Signal(32), Signal(16)
        is_write, wait = Signal(), Signal(range(timing.miss_cycles + timing.refresh_cycles + 1))
        row, row_open = Signal(32), Signal()
        countdown, refresh_due = Signal(range(timing.refresh_every)), Signal()
        acknowledges = Signal(8)

        m.submodules.read_buffer = buffer = fifo.SyncFIFOBuffered(width=width, depth=READ_BUFFER)
        outstanding = Signal(range(READ_BUFFER + 1))
        step_read, step_write = Signal(), Signal()
        word = Signal(width)
        m.submodules.storage = Instance(
            "dram_storage",
            p_WIDTH=width,
            p_ADDRESS_BITS=bits,
            i_clk=ClockSignal(),
            i_address=(address >> low)[:bits],
            i_write=step_write,
            i_write_data=write.data.payload,
            o_read_data=word,
        )
        # The storage answers after one cycle, the buffer after another two.
        delay = [Signal(name=f"arrives_{i}") for i in range(max(1, timing.latency - 4))]
        words = [word] + [Signal(width, name=f"word_{i}") for i in range(1, len(delay))]
        m.d.sync += delay[0].eq(step_read)
        for i in range(1, len(delay)):
            m.d.sync += [delay[i].eq(delay[i - 1]), words[i].eq(words[i - 1])]
        m.d.comb += [buffer.w_en.eq(delay[-1]), buffer.w_data.eq(words[-1])]

        taken = Signal()
        self._offer(m, buffer, read.data, taken)
        m.d.sync += outstanding.eq(outstanding + step_read - taken)

        idle = Signal()
        offered_read = read.burst.valid & read.burst.ready
        offered_write = write.burst.valid & write.burst.ready
        free = Signal()
        m.d.comb += [
            idle.eq(left == 0),
            self.occupied.eq(~idle | (wait != 0)),
            free.eq(idle & (wait == 0) & ~refresh_due & ~self.stall),
            read.burst.ready.eq(free & ~self._writes_turn(m)),
            write.burst.ready.eq(free & ~read.burst.ready),
        ]
        m.d.sync += countdown.eq(countdown + 1)
        with m.If(countdown == timing.refresh_every - 1):
            m.d.sync += [countdown.eq(0), refresh_due.eq(timing.refresh_cycles > 0)]
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(refresh_due & idle):
            m.d.sync += [refresh_due.eq(0), wait.eq(timing.refresh_cycles), row_open.eq(0)]
        for port, taken_now, writes in (
            (read, offered_read, 0),
            (write, offered_write, 1),
        ):
            with m.If(taken_now):
                burst = port.burst.payload
                new_row = burst.address // timing.row_bytes
                miss = ~row_open | (row != new_row)
                m.d.sync += [
                    address.eq(burst.address),
                    left.eq(burst.beats),
                    is_write.eq(writes),
                    row.eq(new_row),
                    row_open.eq(1),
                ]
                with m.If(miss):
                    m.d.sync += wait.eq(timing.miss_cycles)
        moving = ~idle & (wait == 0) & ~self.stall
        m.d.comb += [
            step_read.eq(moving & ~is_write & (outstanding != READ_BUFFER)),
            write.data.ready.eq(moving & is_write),
            step_write.eq(write.data.valid & write.data.ready),
        ]
        with m.If(step_read | step_write):
            m.d.sync += [
                address.eq(address + self.config.bus_bytes),
                left.eq(left - 1),
            ]
        finished = step_write & (left == 1)
        given = write.acknowledge.valid & write.acknowledge.ready
        m.d.comb += write.acknowledge.valid.eq(acknowledges != 0)
        m.d.sync += acknowledges.eq(acknowledges + finished - given)
        return m

    def _writes_turn(self, m: Module) -> Signal:
        """1 while only a write burst may be taken: reads and writes alternate when both wait."""
        turn = Signal()
        m.d.sync += turn.eq(self.write.burst.valid & ~turn)
        return turn

    def _offer(
        self, m: Module, buffer: fifo.SyncFIFOBuffered, data: stream.Interface, taken: Signal
    ) -> None:
        """Moves beats from the buffer to the port; one that is offered stays until it is taken."""
        valid, payload = Signal(), Signal(8 * self.config.bus_bytes)
        free = ~valid | data.ready
        m.d.comb += [
            data.valid.eq(valid),
            data.payload.eq(payload),
            taken.eq(valid & data.ready),
            buffer.r_en.eq(free & ~self.stall),
        ]
        with m.If(free):
            m.d.sync += valid.eq(buffer.r_rdy & ~self.stall)
            m.d.sync += payload.eq(buffer.r_data)
