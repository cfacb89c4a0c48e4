"""The reciprocal square root at the width of the longest norm rows; facts of its algorithm."""

from pathlib import Path

from gateformer.hw.rsqrt import Rsqrt
from gateformer.sim.bench import run_bench
from gateformer.spec.arithmetic import rsqrt

BENCH = str(Path(__file__).with_name("bench_rsqrt.py"))
WIDTH = 52


def test_roots(tmp_path: Path) -> None:
    component = Rsqrt(width=WIDTH)
    environment = {"WIDTH": str(WIDTH), "LATENCY": str(component.latency)}
    run_bench(component, BENCH, tmp_path / "bench", environment=environment)


def test_limit_never_acts() -> None:
    """The hardware leaves out the limit of 65535: no mantissa comes near it."""
    assert max(rsqrt(mantissa << 36)[0] for mantissa in range(1 << 14, 1 << 16)) == 65530
