"""Runs the host's share of a model with onnxruntime."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from gateformer.spec.errors import DataError


class HostRunner:
    """Runs a host model, with inputs cast to the types it declares."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._types = {
            value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        self.inputs: dict[str, tuple[int, ...]] = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in model.graph.input
        }
        """Names and shapes of the model's inputs."""
        self.outputs = [value.name for value in model.graph.output]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's outputs by name, from its inputs; other arrays are ignored. Raises DataError
        when it cannot run on these inputs."""
        feeds = {
            name: _converted(name, inputs[name], kind)
            for name, kind in self._types.items()
            if name in inputs
        }
        quiet = onnxruntime.RunOptions()
        quiet.log_severity_level = 4
        try:
            results = self._session.run(self.outputs, feeds, quiet)
        except Exception as error:  # onnxruntime's exceptions share no base of its own
            raise DataError(f"the host part does not run: {str(error).splitlines()[0]}") from None
        return dict(zip(self.outputs, results, strict=True))


def _converted(name: str, array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """The array in the type that the model declares, if that keeps its values."""
    array = np.asarray(array)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if np.any(array != np.rint(array)) or np.any((array < limits.min) | (array > limits.max)):
            raise DataError(f"input {name!r} must hold integers of type {kind}")
    return array.astype(kind)
