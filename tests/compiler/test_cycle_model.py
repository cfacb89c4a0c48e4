"""The parts of the cycle model, and what a record of a run must satisfy."""

import integer_graphs
import pytest

from gateformer.compiler.backend import compile_quantized
from gateformer.compiler.bound import array_cycles, bound
from gateformer.compiler.cycle_model import predict
from gateformer.compiler.dram_bus import DramBus
from gateformer.compiler.ring_model import Ring
from gateformer.compiler.timeline import Reason
from gateformer.spec.configs import ECP5_85K, SMALL
from gateformer.spec.dram import DramTiming
from gateformer.spec.isa import FORMATS, Engine, Opcode


def test_a_ring_gives_places_in_order():
    ring = Ring(10)
    assert ring.take(10) == 0
    ring.give(4, 100, 140)
    ring.give(6, 200, 200)
    assert ring.take(2) == 120
    assert ring.take(3) == 200
    assert ring.take(5) == 200


def test_the_bus_misses_rows_and_refreshes():
    timing = DramTiming(row_bytes=64, miss_cycles=5, refresh_every=100, refresh_cycles=7)
    bus = DramBus(timing, turns=False)
    assert bus.burst(0, 0, 8) == 5 + 8 + 1
    assert bus.burst(0, 16, 8) == 14 + 8 + 1
    assert bus.burst(50, 64, 8) == 50 + 5 + 8 + 1
    # The refresh at 100 has been done by 200, and closed the row.
    assert bus.burst(190, 64, 8) == 190 + 5 + 8 + 1
    assert bus.burst(195, 72, 4) == 204 + 7 + 5 + 4 + 1
    assert bus.beats == 8 + 8 + 8 + 8 + 4


@pytest.mark.parametrize("turns", [False, True])
def test_a_port_that_takes_turns_waits_for_the_last_beat(turns):
    timing = DramTiming(row_bytes=1024, miss_cycles=0, refresh_every=1 << 20, latency=6)
    bus = DramBus(timing, turns=turns)
    first = bus.read(0, 0, 8)
    assert first == 1 + 8 + 1
    second = bus.read(0, 16, 8)
    assert second == first + 9 + (6 + 1 if turns else 0)


def test_a_record_holds_every_engine_of_every_instruction():
    for config in (ECP5_85K, SMALL):
        image = compile_quantized(integer_graphs.post_norm(config, 37, 48, 3, 16, 96, 1), config)
        timeline = predict(config, image.instructions)
        parts = sorted(
            (e, n) for n, i in enumerate(image.instructions) for e in FORMATS[i.opcode].engines
        )
        assert sorted((s.engine, s.index) for s in timeline.spans) == parts
        for engine in Engine:
            last = 0
            for span in timeline.of(engine):
                assert last <= span.ready <= span.start <= span.end <= timeline.cycles
                assert all(cycles >= 0 for cycles in span.waits.values())
                assert span.waits.get(Reason.QUEUE, 0) == span.ready - last
                last = span.end
        gemms = [i for i in image.instructions if i.opcode is Opcode.GEMM]
        assert timeline.busy(Engine.ARRAY) == sum(array_cycles(config, i) for i in gemms)
        assert timeline.cycles >= bound(config, image).cycles
