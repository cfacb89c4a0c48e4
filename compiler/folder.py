"""A compiled model on disk: program image, host models, and a record of how it was made."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from gateformer.compiler.layout import Layout
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import DataError, GateformerError, ImageError
from gateformer.spec.image import Descriptor, ProgramImage

PROGRAM = "program.bin"
BEFORE = "host_before.onnx"
AFTER = "host_after.onnx"
CONFIG = "config.json"
RECORD = "model.json"


def layout_of(descriptor: Descriptor, config: AcceleratorConfig) -> Layout:
    """How a described matrix lies in the words of a config's memory."""
    d = descriptor
    return Layout(d.rows, d.cols // d.segment, d.segment, d.kind, config.word_bytes)


@dataclass(frozen=True)
class CompiledModel:
    """Everything that is needed to run a model, on any engine."""

    config: AcceleratorConfig
    image: ProgramImage
    before: onnx.ModelProto
    after: onnx.ModelProto
    record: dict[str, Any]
    """What model.json holds: source file, hash, options, host operations, predicted cycles."""

    def save(self, directory: Path) -> None:
        """Writes the folder; it appears whole or not at all. Raises GateformerError if it
        cannot."""
        files = {
            PROGRAM: self.image.to_bytes(),
            BEFORE: self.before.SerializeToString(),
            AFTER: self.after.SerializeToString(),
            CONFIG: self.config.to_json().encode(),
            RECORD: (json.dumps(self.record, indent=2) + "\n").encode(),
        }
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".compile-") as scratch:
                part = Path(scratch) / "model"
                part.mkdir()
                for name, content in files.items():
                    (part / name).write_bytes(content)
                if directory.exists():
                    _replaceable(directory)
                    shutil.rmtree(directory)
                part.rename(directory)
        except OSError as error:
            raise GateformerError(
                f"cannot write the folder {directory}: {error.strerror or error}"
            ) from None

    @classmethod
    def load(cls, directory: Path) -> "CompiledModel":
        """Raises ImageError when the folder is missing, incomplete or damaged."""
        try:
            content = {
                name: (directory / name).read_bytes()
                for name in (PROGRAM, BEFORE, AFTER, CONFIG, RECORD)
            }
        except OSError as error:
            raise ImageError(
                f"{directory} is no compiled model: cannot read {error.filename}: {error.strerror}"
            ) from None
        image = ProgramImage.from_bytes(content[PROGRAM], source=str(directory / PROGRAM))
        config = AcceleratorConfig.load(directory / CONFIG)
        image.check_config(config)
        try:
            before = onnx.load_model_from_string(content[BEFORE])
            after = onnx.load_model_from_string(content[AFTER])
            record = json.loads(content[RECORD])
        except Exception as error:  # protobuf's own error types are not exported
            raise ImageError(f"{directory} holds a damaged host model or record: {error}") from None
        return cls(config, image, before, after, record)

    def host(self) -> "HostModel":
        return HostModel(self)


def _replaceable(directory: Path) -> None:
    """Raises GateformerError unless the folder is empty or an earlier compiled model."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {""}
    if names and PROGRAM not in names:
        raise GateformerError(
            f"{directory} exists and is no compiled model: name another folder or remove it"
        )


class HostModel:
    """The host's share of a compiled model: between the model's float arrays and codes in
    memory."""

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        self._before = _session(model.before)
        self._after = _session(model.after)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the model's inputs."""
        return {i.name: tuple(i.shape) for i in self._before.get_inputs()}

    def encode(self, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """From one sample (ONNX names, float) to the bytes of every input matrix."""
        names = [d.name for d in self.model.image.inputs]
        matrices = self._before.run(names, sample)
        result = {}
        for descriptor, matrix in zip(self.model.image.inputs, matrices, strict=True):
            bits = 8 if descriptor.kind == "int8" else 16
            top = (1 << (bits - 1)) - 1
            codes = np.rint(np.asarray(matrix, np.float64) / descriptor.scale) + descriptor.zero
            codes = np.clip(codes, -top - 1, top).astype(np.int64)
            result[descriptor.name] = layout_of(descriptor, self.model.config).pack(codes)
        return result

    def decode(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """From the bytes of every output matrix to the model's outputs (ONNX names, float32)."""
        feeds = {}
        for descriptor in self.model.image.outputs:
            layout = layout_of(descriptor, self.model.config)
            codes = layout.unpack(outputs[descriptor.name])
            feeds[descriptor.name] = ((codes - descriptor.zero) * descriptor.scale).astype(
                np.float32
            )
        names = [o.name for o in self._after.get_outputs()]
        return dict(zip(names, self._after.run(names, feeds), strict=True))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def load_samples(path: Path, shapes: dict[str, tuple[int, ...]]) -> list[dict[str, np.ndarray]]:
    """Samples of an .npz file whose arrays carry the inputs' names and the shape
    [samples, *shape of the input].

    Raises DataError for a file that cannot be read, a wrong name, shape or type, NaN or infinity.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read arrays from {path}: {reason}") from None
    except Exception as error:  # zipfile and zlib raise their own types for damaged archives
        raise DataError(f"cannot read arrays from {path}: {error}") from None
    return check_samples(arrays, shapes, source=str(path))


def check_samples(
    arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], *, source: str
) -> list[dict[str, np.ndarray]]:
    """The samples of arrays by input name, float32. Raises DataError, see `load_samples`."""
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
    return [
        {name: arrays[name][i].astype(np.float32) for name in shapes} for i in range(counts.pop())
    ]
