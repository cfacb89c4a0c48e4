"""One large product alone: how busy the array is with operands and result in DRAM.

    python -m gateformer.examples.product [M N K] [CONFIG]

Prints the array's utilization from the first instruction to the last output byte, and the speed of
the simulation.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateformer.compiler.compile import compile
from gateformer.compiler.samples import split_samples
from gateformer.sim.simulate import simulate, utilization
from gateformer.spec.configs import find_config

SEED = 1


def product_model(m: int, n: int, k: int) -> onnx.ModelProto:
    """y[m, n] = x[m, k] @ w[k, n] with normal random weights."""
    weights = np.random.default_rng(SEED).normal(0, k**-0.5, (k, n)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (m, k))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (m, n))],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(arguments: list[str]) -> None:
    m, n, k = (int(a) for a in arguments[:3]) if len(arguments) >= 3 else (256, 768, 768)
    config = find_config(arguments[3] if len(arguments) > 3 else "ecp5-85k")
    arrays = {"x": np.random.default_rng(SEED).normal(size=(1, m, k)).astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        model, calibration = Path(folder, "product.onnx"), Path(folder, "calibration.npz")
        onnx.save(product_model(m, n, k), model)
        np.savez(calibration, allow_pickle=False, **arrays)
        compiled = compile(model, calibration, config)
    assert compiled is not None
    (result,) = simulate(compiled, split_samples(arrays), progress=print)
    assert result.cycles is not None
    share = utilization(config, compiled.image.model_macs, result.cycles)
    print(f"{m}x{n}x{k} on {config.name}: {compiled.image.model_macs:,} MACs")
    print(f"{result.cycles:,} cycles, array busy {100 * share:.1f} %")
    print("bit-exact" if result.bit_exact else "NOT bit-exact")
    print(f"{result.cycles / result.seconds:,.0f} simulated cycles a second")


if __name__ == "__main__":
    main(sys.argv[1:])
