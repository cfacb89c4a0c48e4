"""The choice of one word, in each family's form."""

from pathlib import Path
from typing import Literal

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, In, Out

from gateformer.hw.primitives.selection import select_one
from gateformer.sim.bench import run_bench

BITS = 6
SB_LUT4 = """
module SB_LUT4 #(parameter [15:0] LUT_INIT = 0) (input I0, I1, I2, I3, output O);
  assign O = LUT_INIT[{I3, I2, I1, I0}];
endmodule
"""


class _Choice(Component):
    """select_one with ports."""

    def __init__(self, count: int, *, blank: bool, family: Literal["generic", "ice40"]) -> None:
        self.count = count
        self.blank = blank
        self.family = family
        words = {f"word_{i}": In(BITS) for i in range(count)}
        super().__init__({"chosen": In(count), **words, "result": Out(BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        result = select_one(
            m,
            list(self.chosen),
            [getattr(self, f"word_{i}") for i in range(self.count)],
            name="word",
            blank=self.blank,
            family=self.family,
        )
        m.d.comb += self.result.eq(result)
        return m


@pytest.mark.parametrize(
    ("count", "blank", "family"),
    [(5, True, "generic"), (3, True, "ice40"), (3, False, "ice40"), (4, False, "ice40")],
)
def test_choice(
    count: int, blank: bool, family: Literal["generic", "ice40"], tmp_path: Path
) -> None:
    cells = tmp_path / "cells.v"
    cells.write_text(SB_LUT4 if family == "ice40" else "")
    run_bench(
        _Choice(count, blank=blank, family=family),
        str(Path(__file__).with_name("bench_selection.py")),
        tmp_path / "bench",
        environment={"COUNT": str(count), "BITS": str(BITS), "BLANK": str(int(blank))},
        sources=(cells,),
    )
