"""The host's share: ONNX models that run before and after the accelerator."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateformer.compiler.importer import ImportedModel

IR_VERSION = 10
"""What opset 21 asks for."""


class HostModel:
    """An ONNX model in the making."""

    def __init__(self, model: ImportedModel, name: str) -> None:
        self._model = model
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._fresh = 0

    def node(self, operator: str, inputs: Iterable[str], output: str, **attributes: object) -> None:
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))

    def original(self, proto: onnx.NodeProto) -> None:
        """A node of the model as it is."""
        self._nodes.append(proto)

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
        self, source: str, size: int, elements: np.ndarray, target: str, *, elem: int | None = None
    ) -> None:
        """target[...] = flat source[elements[...]]: a Reshape, after a Gather where elements move.

        size: elements of source. elem: ONNX type to cast to, if it is another one.
        """
        if not np.array_equal(elements.ravel(), np.arange(size)):
            flat, moved = self.fresh(), self.fresh()
            self.node("Reshape", [source, self.constant(np.array([-1]))], flat)
            self.node("Gather", [flat, self.constant(elements.ravel())], moved)
            source = moved
        shaped = target if elem is None else self.fresh()
        shape = self.constant(np.array(elements.shape, np.int64))
        self.node("Reshape", [source, shape], shaped)
        if elem is not None:
            self.node("Cast", [shaped], target, to=elem)

    def build(self) -> onnx.ModelProto:
        constants: Mapping[str, np.ndarray] = {**self._model.constants, **self._constants}
        used = {name for node in self._nodes for name in node.input}
        made = {name for node in self._nodes for name in node.output}
        initializers = [
            numpy_helper.from_array(array, name)
            for name, array in constants.items()
            if name in used and name not in made
        ]
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializers
        )
        opset = helper.make_opsetid("", self._model.opset)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gateformer"
        )


def _info(name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


FLOAT = TensorProto.FLOAT
