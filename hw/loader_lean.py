"""Fills one operand ring from local memory with few flip-flops."""

from amaranth import Cat, Module, Mux, Signal, unsigned

from gateformer.hw.countdown import CountDown
from gateformer.hw.credits import Credits
from gateformer.hw.interfaces import local_read_latency
from gateformer.hw.loader_ports import LoaderPorts
from gateformer.hw.primitives.adder import mux_add, wrapped


class LeanLoader(LoaderPorts):
    """`Loader` without registers on the way from or to local memory.

    Words find their places when they arrive: of what is known when they are asked for, only the
    ends of rows and groups travel beside them.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        stream, request = self.instructions.stream, self.read.request
        p = stream.payload
        rows, address, stride = self.operand()
        m.submodules.free = free = Credits(self.depth, init=self.depth)

        # An instruction begins with an advance to its first word, as to a row behind a row at
        # address 0; each request that is taken advances to the next word.
        starting, asking, idle = Signal(), Signal(), Signal()
        step, advance, row_ends = Signal(), Signal(), Signal()
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
        # An instruction is there two cycles before the first request.
        nothing = Signal()
        m.d.sync += nothing.eq((p.k == 0) | (rows == 0))
        bank = Signal(range(self.banks), reset_less=True)
        group_ends = rows_count.last | (bank == self.banks - 1)
        first_row = bank == 0
        m.d.comb += [
            idle.eq(~(starting | asking | stream.ready)),
            row_ends.eq(starting | words.last),
            request.valid.eq(asking & ~nothing & (~first_row | free.available)),
            step.eq(request.valid & request.ready),
            advance.eq(starting | step),
            free.take.eq(step & first_row),
            free.give.eq(self.release),
        ]
        ends = step & words.last & rows_count.last
        m.d.sync += [
            starting.eq(idle & stream.valid),
            stream.ready.eq(ends | (asking & nothing)),
            asking.eq(starting | (asking & ~ends & ~nothing)),
        ]
        with m.If(starting):
            m.d.sync += bank.eq(0)
        with m.Elif(step & words.last):
            m.d.sync += bank.eq(Mux(group_ends, 0, bank + 1))

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
        m.d.comb += request.payload.eq(word_address)
        with m.If(idle | advance):
            m.d.sync += increment.eq(Mux(idle | words.next_last, Mux(idle, address, stride), 1))
        with m.If(idle):
            m.d.sync += [row_address.eq(0), word_address.eq(0)]
        with m.Elif(advance):
            m.d.sync += word_address.eq(next_address)
            with m.If(row_ends):
                m.d.sync += row_address.eq(next_address)

        # Where words go. The rows of a group begin behind the last word of the group before.
        row_arrived, group_arrived = words.last, group_ends & words.last
        for stage in range(local_read_latency(config)):
            late = (Signal(name=f"row_ends_{stage}"), Signal(name=f"group_ends_{stage}"))
            m.d.sync += [late[0].eq(row_arrived), late[1].eq(group_arrived)]
            row_arrived, group_arrived = late
        position, group = Signal(range(self.depth)), Signal(range(self.depth))
        bank_arriving = Signal(range(self.banks))
        following = wrapped(m, position + 1, self.depth, name="following")
        m.d.comb += [
            self.write_enable.eq(
                Cat(self.read.response_valid & (bank_arriving == i) for i in range(self.banks))
            ),
            self.write_data.eq(self.read.response),
            self.write_position.eq(position),
            self.loaded.eq(self.read.response_valid & group_arrived),
        ]
        with m.If(self.read.response_valid):
            m.d.sync += position.eq(Mux(row_arrived & ~group_arrived, group, following))
            with m.If(group_arrived):
                m.d.sync += [group.eq(following), bank_arriving.eq(0)]
            with m.Elif(row_arrived):
                m.d.sync += bank_arriving.eq(bank_arriving + 1)
        return m
