"""What a model file computes in float, by onnxruntime: the measure of every pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from gateformer.compiler.importer_file import read_file, with_weights
from gateformer.compiler.importer_qdq import remove_pairs
from gateformer.spec.errors import DataError, ModelError


def run_reference(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The outputs by name. Raises DataError when the model cannot run on these inputs."""
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        results = session.run(list(outputs), dict(feeds), quiet)
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise DataError(f"the model does not run: {str(error).splitlines()[0]}") from None
    return dict(zip(outputs, results, strict=True))


def reference_session(path: Path) -> onnxruntime.InferenceSession:
    """A session that runs the file; or where it holds other float types or rounds activations, the
    same model in float32 without rounding, as the compiler imports it. Raises ModelError."""
    file = read_file(path)
    changed = bool(remove_pairs(file)) or file.converted
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Otherwise it would round the activations that meet weights behind DequantizeLinear.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(
            with_weights(file) if changed else str(path),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelError(f"onnxruntime cannot run {path}: {str(error).splitlines()[0]}") from None
