"""The performance counters: exact 32-bit totals of many events at a few LUTs each."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gateformer.spec.registers import Counter

CYCLES = len(Counter)
"""What `select` of :class:`Counters` takes for the total of all cycles."""
_BITS = CYCLES.bit_length()
PERIOD = 1 << _BITS
"""Cycles of a sweep over all totals, and events that one step of a total stands for."""


class CounterPorts(wiring.Component):
    """See `Counters`."""

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


class CycleCounter(CounterPorts):
    """`Counters` of nothing but the cycles with `run`; the other totals are 0."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(32)
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.Elif(self.run):
            m.d.sync += total.eq(total + 1)
        m.d.comb += self.value.eq(Mux(self.select == CYCLES, total, 0))
        return m


class Counters(CounterPorts):
    """For each event (bit i is spec Counter i) the number of cycles with `run` in which it was 1.

    `clear` starts from zero; a run is the cycles with `run` that follow it without a gap. `busy` is
    1 from `clear` until about PERIOD**2 cycles after the end of `run`; then `value` is the total
    that `select` chose two cycles before: a Counter, or CYCLES for the number of cycles with `run`.

    Each event steps a prescaler of PERIOD states and a toggle that turns over with it. A sweep
    visits one event a cycle and adds PERIOD to its total in RAM when its toggle differs from that
    bit of the total: no more than one turn fits between two visits. To get at a prescaler's value v
    after the run, all prescalers are stepped together PERIOD - 1 times, with a sweep after each
    step: its toggle differs in the last v of these sweeps, each of which adds 1.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = Signal()
        turn = Signal(_BITS + 1)
        """Sweeps since the end of the run: two complete the totals, the others add the rests."""
        step = Signal()
        m.d.comb += step.eq(last & (turn != 0))

        toggles = Signal(PERIOD)
        for i in range(CYCLES + 1):
            m.d.comb += toggles[i].eq(self._prescaler(m, i, step))

        visited = Signal(_BITS)
        stale = Signal()
        """In the first sweep after `clear`, in which no toggle can turn over, totals become 0."""
        m.d.sync += visited.eq(visited + 1)
        m.d.comb += last.eq(visited.all())
        with m.If(self.clear):
            m.d.sync += [self.busy.eq(1), turn.eq(0), stale.eq(1), visited.eq(0)]
        with m.Elif(last):
            m.d.sync += stale.eq(0)
            with m.If(self.busy & ~self.run):
                m.d.sync += turn.eq(turn + 1)
                with m.If(turn[-1]):
                    m.d.sync += self.busy.eq(0)

        # A total is written three cycles after it is read, so never in the same cycle.
        memory: Any = Memory(shape=32, depth=PERIOD, init=[], attrs={"no_rw_check": 1})
        m.submodules.memory = memory
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += read.addr.eq(Mux(self.busy, visited, self.select))
        m.d.sync += self.value.eq(read.data)
        stages: list[Value] = [
            Cat(visited, toggles.bit_select(visited, 1), turn[1:].any(), stale, self.busy)
        ]
        for i in range(3):
            stages.append(Signal(len(stages[0]), name=f"stage{i + 1}", reset_less=True))
            m.d.sync += stages[-1].eq(stages[-2])
        toggle, rest, empty = (stages[2][_BITS + i] for i in range(3))
        turned = Signal()
        total = Signal(32, reset_less=True)
        m.d.comb += turned.eq(toggle != self.value[_BITS])
        with m.If(empty):
            m.d.sync += total.eq(0)
        with m.Else():
            m.d.sync += total.eq(
                self.value + Cat(turned & rest, Const(0, _BITS - 1), turned & ~rest)
            )
        m.d.comb += [
            write.addr.eq(stages[3][:_BITS]),
            write.en.eq(stages[3][-1]),
            write.data.eq(total),
        ]
        return m

    def _prescaler(self, m: Module, index: int, step: Signal) -> Signal:
        """A register that runs through PERIOD states; returns the toggle."""
        name = "cycles" if index == CYCLES else Counter(index).name.lower()
        state = Signal(_BITS, name=f"state_{name}")
        toggle, moves = Signal(name=f"toggle_{name}"), Signal(name=f"moves_{name}")
        event = self.run if index == CYCLES else self.events[index] & self.run
        m.d.comb += moves.eq(event | step)
        # A linear-feedback register of period PERIOD - 1 and its zero state, put in behind the
        # state in which only the last bit is 1.
        low = ~state[:-1].any()
        with m.If(self.clear):
            m.d.sync += [state.eq(0), toggle.eq(0)]
        with m.Elif(moves):
            m.d.sync += state.eq(Cat(state[-1] ^ state[-2] ^ low, state[:-1]))
            m.d.sync += toggle.eq(toggle ^ (low & state[-1]))
        return toggle
