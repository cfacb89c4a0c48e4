"""Which sizes of an instruction a runtime length cuts.

A size is cut where the axis it counts is tokens: the offset is the token of its first element, so
that what lies behind the length falls away.
"""

from dataclasses import dataclass, field

from gateformer.compiler.gemm_geometry import columns_are_cut
from gateformer.compiler.graph import View
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.spec.config import AcceleratorConfig


def sample_of(tensor: QTensor, row: int) -> int:
    """The sample that a row of a tensor with rows for tokens belongs to."""
    return tensor.sample + row // (tensor.rows // tensor.samples)


@dataclass
class Sizes:
    """Size fields of one instruction. Everything is static where the graph has no tokens."""

    graph: QuantizedGraph
    config: AcceleratorConfig
    values: dict[str, int] = field(default_factory=dict)

    def cut(self, name: str, size: int, offset: int, sample: int) -> None:
        """A size whose first element is token `offset` of a sample."""
        self.values |= {
            name: size,
            f"{name}_offset": offset,
            f"{name}_dynamic": 1,
            "sample": sample,
        }

    def rows(self, name: str, size: int, view: View, first: int = 0) -> "Sizes":
        """`size` rows of a view, from its row `first` on, all of one sample."""
        tensor = self.graph.tensors[view.tensor]
        self.values[name] = size
        if self.graph.tokens is not None and tensor.row_token is not None:
            row = view.row + first
            offset = tensor.row_token + row % (tensor.rows // tensor.samples)
            self.cut(name, size, offset, sample_of(tensor, row))
        return self

    def columns(self, name: str, size: int, view: View) -> "Sizes":
        """`size` columns of a view of one sample that are summed over or softmaxed."""
        tensor = self.graph.tensors[view.tensor]
        self.values[name] = size
        if columns_are_cut(self.graph, view.tensor, self.config):
            # Samples lie side by side where the rows are no tokens.
            aside = view.col // tensor.segment if tensor.row_token is None else 0
            self.cut(name, size, 0, self.values.get("sample", tensor.sample + aside))
        return self
