"""Which rows of every tensor lie in local memory; the others lie in DRAM."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from gateformer.compiler.graph import View
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.spec.config import AcceleratorConfig


@dataclass(frozen=True)
class Residency:
    """rows: for each tensor in local memory, how many of its first rows are there.

    Without external memory every constant is there too.
    """

    graph: QuantizedGraph
    config: AcceleratorConfig
    rows: Mapping[str, int]

    def resident(self, name: str) -> int:
        """How many of the first rows of a tensor lie in local memory."""
        tensor = self.graph.tensors[name]
        if self.config.dram == "none":
            return tensor.rows
        return self.rows.get(name, 0)

    def resident_rows(self, view: View) -> int:
        """How many of the first rows of a view lie in local memory."""
        return min(max(self.resident(view.tensor) - view.row, 0), view.rows)

    def spilled_rows(self, view: View) -> int:
        return view.rows - self.resident_rows(view)


def row_groups(
    residency: Residency, out: View, others: list[View], group: int
) -> list[tuple[int, int]]:
    """(first row, rows) of the groups in which an operation walks the rows of its output and of
    equally large views beside it: at most `group` rows, of one sample where a runtime length cuts
    them, and of each view either all in local memory or all in DRAM."""
    tensor = residency.graph.tensors[out.tensor]
    cuts = {0, out.rows}
    if tensor.row_token is not None:
        cuts |= {row - out.row for row in range(0, tensor.rows, tensor.rows // tensor.samples)}
    cuts |= {residency.resident(view.tensor) - view.row for view in (out, *others)}
    edges = sorted(cut for cut in cuts if 0 <= cut <= out.rows)
    return [
        (row, min(group, end - row))
        for start, end in pairwise(edges)
        for row in range(start, end, group)
    ]
