"""Between real values and integer codes: real value = scale * (code - zero)."""

import numpy as np

from gateformer.compiler.quantized import QTensor
from gateformer.spec import arithmetic
from gateformer.spec.errors import DataError

TYPES: dict[str, type[np.signedinteger]] = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
}


def encode(values: np.ndarray, scale: float, zero: int, bits: int) -> np.ndarray:
    """The nearest codes, saturated to `bits` bits, int64."""
    codes = np.rint(np.asarray(values, np.float64) / scale).astype(np.int64)
    return arithmetic.saturate(codes + zero, bits)


def quantize_input(tensor: QTensor, values: np.ndarray, residual_bits: int = 16) -> np.ndarray:
    """Codes [rows, cols] of a float matrix for an INPUT tensor, in the tensor's integer type.

    int16 codes saturate to residual_bits. Raises DataError for a wrong shape and values that are
    not finite.
    """
    array = np.asarray(values, np.float64)
    if array.shape != (tensor.rows, tensor.cols):
        raise DataError(
            f"{tensor.name!r} has shape {array.shape}; expected {(tensor.rows, tensor.cols)}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{tensor.name!r} holds NaN or infinity")
    if tensor.scale is None:
        raise DataError(f"{tensor.name!r} has no scale")
    bits = 8 if tensor.kind == "int8" else residual_bits
    return encode(array, tensor.scale, tensor.zero, bits).astype(TYPES[tensor.kind])


def dequantize(tensor: QTensor, codes: np.ndarray) -> np.ndarray:
    """The real values of codes, float64."""
    if tensor.scale is None:
        raise DataError(f"{tensor.name!r} has no scale")
    values = tensor.scale * (np.asarray(codes, np.float64) - tensor.zero)
    if tensor.channels is not None:
        values = tensor.channels.offsets + tensor.channels.factors * values
    return values
