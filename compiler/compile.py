"""The compiler: a list of named passes from an ONNX file to a program.

The passes are import, lower, quantize, batch, order, plan, schedule, synchronize and encode.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateformer.compiler.backend import compile_layers
from gateformer.compiler.batching import check_batch
from gateformer.compiler.cycle_model import predict_cycles
from gateformer.compiler.folder import CompiledModel, input_shapes
from gateformer.compiler.importer import import_model
from gateformer.compiler.lowering import lower
from gateformer.compiler.quantize import quantize
from gateformer.compiler.quantize_options import QuantizationOptions
from gateformer.compiler.samples import load_samples
from gateformer.spec.config import AcceleratorConfig


class Stopped(Exception):  # noqa: N818 - no error: the caller asked for it
    """Ends a compilation after the pass that was asked for."""


@dataclass(frozen=True)
class Options:
    """shapes: a shape for each model input with dynamic dimensions. stop_after: a pass of PASSES,
    or None. samples: of a batch. quantization: its choices. observe: called after each pass with
    its name and result."""

    shapes: Mapping[str, tuple[int, ...]]
    samples: int = 1
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    stop_after: str | None = None
    observe: Callable[[str, Any], None] = lambda *_: None


def compile(
    model: Path, calibration: Path, config: AcceleratorConfig, options: Options | None = None
) -> CompiledModel | None:
    """Compiles an ONNX file with calibration samples for a config.

    calibration: an .npz whose arrays carry the inputs' names and the shape [samples, *shape of the
    input]. Returns None when stopped early. Raises ModelError, DataError, CapacityError.
    """
    options = options or Options({})
    check_batch(options.samples, config)

    def after(name: str, result: Any) -> None:
        options.observe(name, result)
        if name == options.stop_after:
            raise Stopped

    try:
        return _compile(model, calibration, config, options, after)
    except Stopped:
        return None


def _compile(
    model: Path,
    calibration: Path,
    config: AcceleratorConfig,
    options: Options,
    after: Callable[[str, Any], None],
) -> CompiledModel:
    imported = import_model(model, options.shapes)
    after("import", imported)
    graph = lower(imported)
    after("lower", graph)
    samples = load_samples(calibration, input_shapes(graph.host.before))
    quantized = quantize(graph, config, samples, options.quantization)
    after("quantize", quantized)
    image, layers = compile_layers(quantized, config, samples=options.samples, observe=after)
    record = {
        "gateformer": version("gateformer"),
        "model": model.name,
        "shapes": {name: list(shape) for name, shape in options.shapes.items()},
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "calibration": calibration.name,
        "quantization": asdict(options.quantization),
        "config": config.name,
        "model_macs": image.model_macs,
        "instructions": len(image.instructions),
        "weight_bytes": len(image.data),
        "host_ops": [asdict(operation) for operation in graph.host.operations],
        "predicted_cycles": predict_cycles(config, image.instructions),
    }
    host = graph.host
    return CompiledModel(config, image, host.before, host.after, record, quantized, layers, model)
