"""The serial divider, with the sums of the longest softmax rows."""

from pathlib import Path

from gateformer.hw.serial_divider import SerialDivider
from gateformer.sim.bench import run_bench

BENCH = str(Path(__file__).with_name("bench_serial_divider.py"))


def test_reciprocals(tmp_path: Path) -> None:
    bits = (127 * 4095).bit_length()
    run_bench(
        SerialDivider(total_bits=bits),
        BENCH,
        tmp_path / "bench",
        environment={"TOTAL_BITS": str(bits)},
    )
