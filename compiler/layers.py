"""Which operation of the integer graph every instruction of a program serves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateformer.compiler.quantized import QCopy, QGemm, QNorm, QOperation, QSoftmax
from gateformer.spec.errors import ImageError

KINDS = {QGemm: "gemm", QSoftmax: "softmax", QNorm: "norm", QCopy: "copy"}


@dataclass(frozen=True)
class Layers:
    """names, kinds: of the operations, in the order in which they run. owners: for each instruction
    the index of its operation; the number of operations for what only ends the program."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    owners: tuple[int, ...]

    @classmethod
    def of(cls, operations: Sequence[QOperation], owners: Sequence[int]) -> "Layers":
        names = tuple(op.name for op in operations)
        return cls(names, tuple(KINDS[type(op)] for op in operations), tuple(owners))

    def to_json(self) -> str:
        record = {"names": self.names, "kinds": self.kinds, "owners": self.owners}
        return json.dumps(record) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> "Layers":
        """Raises ImageError for anything that `to_json` did not write."""
        try:
            record = json.loads(text)
            names, kinds, owners = (tuple(record[key]) for key in ("names", "kinds", "owners"))
            limits = (min(owners, default=0), max(owners, default=0))
        except (ValueError, KeyError, TypeError):
            raise ImageError(f"{source} does not parse: compile the model again") from None
        if len(names) != len(kinds) or limits[0] < 0 or limits[1] > len(names):
            raise ImageError(f"{source} does not fit together: compile the model again")
        return cls(names, kinds, owners)
