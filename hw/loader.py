"""Fills one operand ring from local memory: the engines LOAD_A and LOAD_B."""

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, unsigned

from gateformer.hw.countdown import CountDown
from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import local_read_latency
from gateformer.hw.loader_ports import LoaderPorts
from gateformer.hw.primitives.adder import mux_add, wrapped


class Loader(LoaderPorts):
    """Reads rows of an operand word by word and appends them to a ring, row r to bank r mod banks.

    `engine` is LOAD_A or LOAD_B. One group is `banks` rows, the last one of an instruction may have
    fewer; all rows of a group share their positions. The first row of a group takes a free word for
    each word; `release` gives one back. `loaded` is 1 in the cycle in which the last word of a
    group is written, so that the group may be read from the next cycle on.

    One word a cycle as long as words are free and requests are taken. The first request comes three
    cycles after the instruction. An instruction is complete in the cycle after the last request was
    taken (a write taken later does not change what was asked for); one without rows or elements
    takes two cycles. Requests come from registers, and so do the ring's inputs: words find their
    places when they arrive, so that of what is known when they are asked for only the ends of
    rows and groups travel beside them.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        stream = self.instructions.stream
        request = self.read.request
        p = stream.payload
        rows, address, stride = self.operand()

        m.submodules.free = free = Credits(self.depth, init=self.depth)
        m.d.comb += free.give.eq(self.release)

        # An instruction begins with an advance to its first word, as to a row behind a row at
        # address 0. Then each step hands a request on and advances to the next word.
        starting = Signal()
        asking = Signal()
        idle = Signal()
        step = Signal()
        advance = Signal()
        row_ends = Signal()
        m.d.comb += [
            idle.eq(~(starting | asking | request.valid | stream.ready)),
            advance.eq(starting | step),
        ]

        words = CountDown(
            m,
            config,
            total=p.k,
            step=config.word_bytes,
            load=row_ends,
            advance=advance,
            name="words",
        )
        rows_count = CountDown(
            m,
            config,
            total=rows,
            step=1,
            load=starting,
            advance=advance & row_ends,
            name="rows",
        )
        last_word, last_row = words.last, rows_count.last
        # An instruction is there two cycles before the first step.
        nothing = Signal()
        m.d.sync += nothing.eq((p.k == 0) | (rows == 0))
        m.d.comb += row_ends.eq(starting | last_word)

        # The next word, or the next row's first.
        increment = Signal(16, reset_less=True)
        row_address = Signal(16, reset_less=True)
        word_address = Signal(16, reset_less=True)
        next_address = mux_add(
            m,
            increment,
            row_ends,
            row_address,
            word_address,
            unsigned(16),
            name="next_address",
            family=config.family,
        )
        jumps = idle | words.next_last
        with m.If(idle | advance):
            m.d.sync += increment.eq(Mux(jumps, Mux(idle, address, stride), 1))
        with m.If(idle):
            m.d.sync += [row_address.eq(0), word_address.eq(0)]
        with m.Elif(advance):
            m.d.sync += word_address.eq(next_address)
            with m.If(row_ends):
                m.d.sync += row_address.eq(next_address)

        bank = Signal(range(self.banks), reset_less=True)
        first_row = Signal(reset_less=True)
        group_ends = last_row | (bank == self.banks - 1)
        group_starts = starting | group_ends
        with m.If(advance & row_ends):
            m.d.sync += [first_row.eq(group_starts), bank.eq(Mux(group_starts, 0, bank + 1))]
        ends = last_word & last_row

        # The request on offer, and what its word ends.
        offered_ends = Signal(reset_less=True)
        offered_row_ends = Signal(reset_less=True)
        offered_group_ends = Signal(reset_less=True)
        taken = Signal()
        m.d.comb += [
            taken.eq(request.valid & request.ready),
            step.eq(asking & (~first_row | free.available) & (~request.valid | request.ready)),
            free.take.eq(step & first_row),
        ]
        with m.If(step):
            m.d.sync += [
                request.valid.eq(1),
                request.payload.eq(word_address),
                offered_ends.eq(ends),
                offered_row_ends.eq(last_word),
                offered_group_ends.eq(last_word & group_ends),
            ]
        with m.Elif(request.ready):
            m.d.sync += request.valid.eq(0)

        m.d.sync += [
            starting.eq(idle & stream.valid),
            stream.ready.eq((taken & offered_ends) | (starting & nothing)),
        ]
        with m.If(starting):
            m.d.sync += asking.eq(~nothing)
        with m.Elif(step & ends):
            m.d.sync += asking.eq(0)

        self._place(m, taken, offered_row_ends, offered_group_ends)
        return m

    def _place(self, m: Module, taken: Value, row_ends: Value, group_ends: Value) -> None:
        """Writes words where they belong when they arrive; the ends are those of the word that is
        `taken`."""
        # A word's place is found in the cycle before it arrives: the ring is all over the chip.
        word: Value = Cat(taken, row_ends, taken & group_ends)
        for stage in range(local_read_latency(self.config) - 1):
            late = Signal.like(word, name=f"coming_{stage}")
            m.d.sync += late.eq(word)
            word = late
        arrives, row_ends, group_ends = word

        # The rows of a group begin behind the last position of the group before.
        position = Signal(range(self.depth), reset_less=True)
        before_group = Signal(range(self.depth), init=self.depth - 1)
        again = Signal(init=1)
        begins = Signal(init=1)
        following = mux_add(
            m,
            Const(1, 1),
            again,
            before_group,
            position,
            Shape.cast(range(self.depth + 1)),
            name="following",
            family=self.config.family,
        )
        bank = Signal(range(self.banks), name="bank_arriving", reset_less=True)
        group_ended = Signal()
        arrived = Signal.like(self.write_data, name="arrived", reset_less=True)
        written = Signal.like(self.write_position, name="written", reset_less=True)
        m.d.comb += [self.write_data.eq(arrived), self.write_position.eq(written)]
        m.d.sync += [
            group_ended.eq(group_ends),
            self.write_enable.eq(
                Cat(self.read.response_valid & (bank == i) for i in range(self.banks))
            ),
            arrived.eq(self.read.response),
            written.eq(position),
            self.loaded.eq(group_ended),
        ]
        with m.If(arrives):
            m.d.sync += [
                position.eq(wrapped(m, following, self.depth, name="next_position")),
                bank.eq(Mux(begins, 0, bank + again)),
                again.eq(row_ends & ~group_ends),
                begins.eq(group_ends),
            ]
        with m.If(group_ended):
            m.d.sync += before_group.eq(position)
