"""The host's share: ONNX models that run before and after the accelerator."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gateformer.compiler.importer import ImportedModel

IR_VERSION = 10
"""What opset 21 asks for."""


class HostModel:
    """An ONNX model in the making."""

    def __init__(self, model: ImportedModel, name: str) -> None:
        self._model = model
        self._name = name
        self._first: list[onnx.NodeProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._fresh = 0

    def node(self, operator: str, inputs: Iterable[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))

    def original(self, proto: onnx.NodeProto) -> None:
        """A node of the model as it is."""
        self._nodes.append(proto)

    def repeat(self, other: "HostModel", names: Iterable[str]) -> None:
        """Computes what another host model computes under these names, before all else here."""
        needed = set(names)
        nodes = []
        for proto in reversed(other._nodes):
            if not needed.isdisjoint(proto.output):
                nodes.append(proto)
                needed.update(proto.input)
        self._first = [*reversed(nodes), *self._first]
        self._constants |= other._constants
        for name in self._model.inputs:
            if name in needed:
                value = self._model.values[name]
                self.input(name, value.shape, value.dtype)

    def constant(self, array: np.ndarray) -> str:
        """The name of a new constant."""
        self._fresh += 1
        name = f"{self._name}/constant_{self._fresh}"
        self._constants[name] = array
        return name

    def fresh(self) -> str:
        self._fresh += 1
        return f"{self._name}/value_{self._fresh}"

    def input(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._inputs.append(_info(name, shape, dtype))

    def output(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._outputs.append(_info(name, shape, dtype))

    def rearrange(
        self,
        source: str,
        elements: np.ndarray,
        target: str,
        *,
        size: int,
        elem: int | None = None,
        first: bool = False,
    ) -> None:
        """target[...] = flat source[elements[...]]: a Reshape, after a Gather where elements move.

        size: elements of source. elem: ONNX type to cast to, if it is another one. first: before
        the nodes that are there already.
        """
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if not np.array_equal(elements.ravel(), np.arange(size)):
            steps.append(("Reshape", [self.constant(np.array([-1]))], {}))
            steps.append(("Gather", [self.constant(elements.ravel())], {}))
        shape = self.constant(np.array(elements.shape, np.int64))
        steps.append(("Reshape", [shape], {}))
        if elem is not None:
            steps.append(("Cast", [], {"to": elem}))
        nodes = self._first if first else self._nodes
        for index, (operator, inputs, attributes) in enumerate(steps):
            output = target if index == len(steps) - 1 else self.fresh()
            nodes.append(helper.make_node(operator, [source, *inputs], [output], **attributes))
            source = output

    def build(self) -> onnx.ModelProto:
        constants: Mapping[str, np.ndarray] = {**self._model.constants, **self._constants}
        nodes = [*self._first, *self._nodes]
        used = {name for node in nodes for name in node.input}
        made = {name for node in nodes for name in node.output}
        initializers = [
            numpy_helper.from_array(array, name)
            for name, array in constants.items()
            if name in used and name not in made
        ]
        graph = helper.make_graph(nodes, self._name, self._inputs, self._outputs, initializers)
        opset = helper.make_opsetid("", self._model.opset)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gateformer"
        )


def _info(name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
