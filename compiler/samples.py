"""Sample inputs: .npz files whose arrays carry the ONNX inputs' names."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gateformer.spec.errors import DataError

Shapes = Mapping[str, tuple[int, ...]]
"""The model's inputs: name to shape."""


def load_samples(path: Path, shapes: Shapes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; they carry the inputs' names and the shape
    [samples, *shape of the input].

    Raises DataError for a file that cannot be read, a wrong name, shape or type, NaN or infinity.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path} holds one array: save it by its input's name, as .npz")
        with loaded as file:
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read arrays from {path}: {reason}") from None
    except Exception as error:  # zipfile and zlib raise their own types for damaged archives
        raise DataError(f"cannot read arrays from {path}: {error}") from None
    check_samples(arrays, shapes, source=str(path))
    return arrays


def check_samples(arrays: Mapping[str, np.ndarray], shapes: Shapes, *, source: str) -> None:
    """Raises DataError as `load_samples` does."""
    for name in arrays:
        if name not in shapes:
            raise DataError(
                f"{source}: array {name!r} is no input of the model; inputs are "
                f"{', '.join(sorted(shapes))}"
            )
    counts = set()
    for name, shape in shapes.items():
        if name not in arrays:
            raise DataError(f"{source}: the array for input {name!r} is missing")
        array = arrays[name]
        if array.dtype.kind not in "fiub":
            raise DataError(f"{source}: array {name!r} has type {array.dtype}, not a number type")
        if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
            raise DataError(
                f"{source}: array {name!r} has shape {list(array.shape)}, expected "
                f"[samples, {', '.join(map(str, shape))}]"
            )
        if not np.isfinite(array.astype(np.float64)).all():
            raise DataError(f"{source}: array {name!r} holds NaN or infinity")
        counts.add(len(array))
    if len(counts) != 1 or counts == {0}:
        raise DataError(f"{source}: every input needs the same number of samples, at least one")


def split_samples(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """One dictionary for each sample."""
    count = len(next(iter(arrays.values())))
    return [{name: array[i] for name, array in arrays.items()} for i in range(count)]
