"""One operator of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper


@dataclass(frozen=True)
class Node:
    """One operator of the model. name is unique; proto is what the host runs."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"node {self.name!r} (operator {self.operator!r})"


def record(proto: onnx.NodeProto, index: int, taken: set[str]) -> Node:
    """The record of a node; one without a name is called by its operator and place."""
    name = proto.name or f"{proto.op_type}_{index}"
    while name in taken:
        name += "'"
    taken.add(name)
    return Node(
        name=name,
        operator=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={a.name: helper.get_attribute_value(a) for a in proto.attribute},
        proto=proto,
    )
