"""A compiled model on disk: program image, host models, and a record of how it was made."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from gateformer.compiler.host_model import HostModel
from gateformer.compiler.layers import Layers
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.compiler.quantized_file import dump_quantized, load_quantized
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import GateformerError, ImageError
from gateformer.spec.image import ProgramImage

PROGRAM = "program.bin"
BEFORE = "host_before.onnx"
AFTER = "host_after.onnx"
CONFIG = "config.json"
RECORD = "model.json"
LAYERS = "layers.json"
QUANTIZED = "quantized.npz"
SOURCE = "source"
"""The folder of the model file that was compiled, and of the files that hold its weights."""


@dataclass(frozen=True)
class CompiledModel:
    """Everything that is needed to run a model, on any engine."""

    config: AcceleratorConfig
    image: ProgramImage
    before: onnx.ModelProto
    after: onnx.ModelProto
    record: dict[str, Any]
    """What model.json holds: source file, hash, options, host operations, predicted cycles."""
    quantized: QuantizedGraph | None = None
    """The integer graph of one sample; with `source` it tells how close the program is to float."""
    layers: Layers | None = None
    """Which operation each instruction serves, for profiles."""
    source: Path | None = None
    """The model file that was compiled, or its copy in the folder."""

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
        if self.quantized is not None:
            files[QUANTIZED] = dump_quantized(self.quantized)
        if self.layers is not None:
            files[LAYERS] = self.layers.to_json().encode()
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".compile-") as scratch:
                part = Path(scratch) / "model"
                part.mkdir()
                for name, content in files.items():
                    (part / name).write_bytes(content)
                if self.source is not None:
                    _copy_model(self.source, part / SOURCE)
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
        quantized, path = None, directory / QUANTIZED
        if path.exists():
            quantized = load_quantized(path.read_bytes(), source=str(path))
        layers, path = None, directory / LAYERS
        if path.exists():
            layers = Layers.from_json(path.read_text(), source=str(path))
        source = directory / SOURCE / str(record.get("model"))
        return cls(
            config,
            image,
            before,
            after,
            record,
            quantized,
            layers,
            source if source.exists() else None,
        )

    def host(self) -> HostModel:
        return HostModel(self.config, self.image, self.before, self.after)


def _copy_model(model: Path, folder: Path) -> None:
    """Copies a model file and the files beside it that hold its weights."""
    graph = onnx.load(model, load_external_data=False).graph
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data)
    names = {model.name} | {entry.value for entry in entries if entry.key == "location"}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.parent / name, folder / name)


def _replaceable(directory: Path) -> None:
    """Raises GateformerError unless the folder is empty or an earlier compiled model."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {""}
    if names and PROGRAM not in names:
        raise GateformerError(
            f"{directory} exists and is no compiled model: name another folder or remove it"
        )


def input_shapes(before: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's inputs, from the host's first part."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in before.graph.input
    }
