"""Float Graph and calibration -> QuantizedGraph."""

from collections.abc import Mapping

import numpy as np

from gateformer.compiler.calibration import Calibration, calibrate
from gateformer.compiler.graph import Graph
from gateformer.compiler.quantize_form import IntegerForm
from gateformer.compiler.quantize_operations import Builder
from gateformer.compiler.quantize_options import QuantizationOptions
from gateformer.compiler.quantize_scales import Scales
from gateformer.compiler.quantized import QuantizedGraph
from gateformer.spec.config import AcceleratorConfig


def quantize(
    graph: Graph,
    config: AcceleratorConfig,
    calibration_inputs: Mapping[str, np.ndarray],
    options: QuantizationOptions | None = None,
) -> QuantizedGraph:
    """The integer graph.

    Every float tensor becomes int8 where products and softmax read it and int16 where norms,
    residuals and the host do; a tensor of both kinds (only a norm can write both) becomes two, the
    second one named "<name>/int16" (or, for an OUTPUT, the int8 one "<name>/int8").
    calibration_inputs: as for `calibrate`. Raises ModelError naming the operation that has no
    integer form or none in this config, DataError for wrong samples.
    """
    calibration = calibrate(graph, calibration_inputs)
    return quantize_calibrated(graph, config, calibration, options)


def quantize_calibrated(
    graph: Graph,
    config: AcceleratorConfig,
    calibration: Calibration,
    options: QuantizationOptions | None = None,
) -> QuantizedGraph:
    """The same from ranges that are known already."""
    form = IntegerForm(graph)
    form.check(config)
    scales = Scales(form, config, calibration, options or QuantizationOptions())
    builder = Builder(form, scales, config)
    for tensor in graph.tensors.values():
        builder.declare(tensor)
    operations = tuple(builder.operation(op) for op in graph.operations)
    return QuantizedGraph(builder.tensors, operations, graph.tokens, graph.least_tokens)
