"""The performance counters: exact 32-bit totals of many events at a few LUTs each."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gateformer.spec.registers import Counter

CYCLES = len(Counter)
"""What `select` of :class:`Counters` takes for the total of all cycles."""


class Counters(wiring.Component):
    """For each event (bit i is spec Counter i) the number of cycles with `run` in which it was 1.

    `clear` starts from zero; a run is the cycles with `run` that follow it without a gap. `busy` is
    1 from `clear` until about 1,100 cycles after the end of `run`; then `value` is the total that
    `select` chose two cycles before: a Counter, or CYCLES for the number of cycles with `run`.

    Each event steps a prescaler of period 32 and a toggle that turns over with it. A sweep visits
    one event a cycle and adds 32 to its total in RAM when its toggle differs from bit 5 of the
    total: no more than one turn fits between two visits. To get at a prescaler's value v after the
    run, all prescalers are stepped together 31 times, with a sweep after each step: its toggle
    differs in the last v of these sweeps, each of which adds 1.
    """

    events: Signal
    clear: Signal
    run: Signal
    busy: Signal
    select: Signal
    value: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "events": In(len(Counter)),
                "clear": In(1),
                "run": In(1),
                "busy": Out(1),
                "select": In(range(CYCLES + 1)),
                "value": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = Signal()
        turn = Signal(6)
        """Sweeps since the end of the run: 0 and 1 complete the totals, 2 to 32 add the rests."""
        step = Signal()
        m.d.comb += step.eq(last & (turn != 0))

        toggles = Signal(32)
        for i in range(CYCLES + 1):
            m.d.comb += toggles[i].eq(self._prescaler(m, i, step))

        visited = Signal(5)
        fresh = Signal(2)
        """Until every event was visited once or twice after `clear`, totals in RAM are stale."""
        m.d.sync += visited.eq(visited + 1)
        m.d.comb += last.eq(visited == 31)
        with m.If(self.clear):
            m.d.sync += [self.busy.eq(1), turn.eq(0), fresh.eq(3)]
        with m.Elif(last):
            m.d.sync += fresh.eq(fresh >> 1)
            with m.If(self.busy & ~self.run):
                m.d.sync += turn.eq(turn + 1)
                with m.If(turn == 32):
                    m.d.sync += self.busy.eq(0)

        # A total is written two cycles after it is read, so never in the same cycle.
        memory: Any = Memory(
            shape=32, depth=32, init=[], attrs={"no_rw_check": 1, "ram_style": "block"}
        )
        m.submodules.memory = memory
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += read.addr.eq(Mux(self.busy, visited, self.select))
        m.d.sync += self.value.eq(read.data)
        stages: list[Value] = [
            Cat(visited, toggles.bit_select(visited, 1), turn[1:].any(), fresh[0], self.busy)
        ]
        for i in range(2):
            stages.append(Signal(len(stages[0]), name=f"stage{i + 1}"))
            m.d.sync += stages[-1].eq(stages[-2])
        address, toggle, rest, stale, enable = (
            stages[2][:5], *(stages[2][i] for i in range(5, 9))
        )  # fmt: skip
        total = Signal(32)
        m.d.comb += [
            total.eq(Mux(stale, 0, self.value)),
            write.addr.eq(address),
            write.en.eq(enable),
            write.data.eq(total + Mux(toggle != total[5], Mux(rest, Const(1, 6), Const(32, 6)), 0)),
        ]
        return m

    def _prescaler(self, m: Module, index: int, step: Signal) -> Signal:
        """A register that runs through all 32 states; returns the toggle."""
        name = "cycles" if index == CYCLES else Counter(index).name.lower()
        state, toggle = Signal(5, name=f"state_{name}"), Signal(name=f"toggle_{name}")
        event = self.run if index == CYCLES else self.events[index] & self.run
        # A linear-feedback register of period 31 and its zero state, put in behind state 16.
        low = ~state[:4].any()
        with m.If(self.clear):
            m.d.sync += [state.eq(0), toggle.eq(0)]
        with m.Elif(event | step):
            m.d.sync += state.eq(Cat(state[4] ^ state[2] ^ low, state[:4]))
            m.d.sync += toggle.eq(toggle ^ (low & state[4]))
        return toggle
