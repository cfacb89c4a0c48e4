"""A QuantizedGraph as bytes: an .npz of its arrays and, as JSON text, of everything else."""

import io
import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gateformer.compiler import quantized
from gateformer.compiler.graph import Role, View
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.spec.errors import ImageError

TEXT = "graph.json"
TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        View,
        quantized.ChannelMap,
        quantized.Gain,
        quantized.QCopy,
        quantized.QGemm,
        quantized.QNorm,
        quantized.QSoftmax,
        quantized.QTensor,
        quantized.QuantizedGraph,
        quantized.Records,
    )
}


def dump_quantized(graph: QuantizedGraph) -> bytes:
    """The graph's bytes: the same for the same graph."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_plain(graph, arrays))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{TEXT: np.frombuffer(text.encode(), np.uint8), **arrays})
    return file.getvalue()


def load_quantized(content: bytes, *, source: str) -> QuantizedGraph:
    """The graph of such bytes. Raises ImageError, naming the source, for any others."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        graph = _built(json.loads(arrays[TEXT].tobytes()), arrays)
    except Exception as error:  # zipfile, zlib, json and numpy each have types of their own
        raise ImageError(f"{source} is damaged or of another version: {error}") from None
    if not isinstance(graph, QuantizedGraph):
        raise ImageError(f"{source} holds no integer graph")
    return graph


def _plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value in JSON's types; arrays are set apart and named."""
    if is_dataclass(value):
        record = {field.name: _plain(getattr(value, field.name), arrays) for field in fields(value)}
        return {"type": type(value).__name__, "fields": record}
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Role):
        return {"role": value.value}
    if isinstance(value, dict):
        return {"map": {key: _plain(item, arrays) for key, item in value.items()}}
    if isinstance(value, tuple):
        return [_plain(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _built(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return tuple(_built(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "type" in value:
        record = {name: _built(item, arrays) for name, item in value["fields"].items()}
        return TYPES[value["type"]](**record)
    if "array" in value:
        return arrays[value["array"]]
    if "role" in value:
        return Role(value["role"])
    return {key: _built(item, arrays) for key, item in value["map"].items()}
