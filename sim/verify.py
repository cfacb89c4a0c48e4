"""Executes a model after each compiler pass and compares it with the pass before."""

from pathlib import Path
from typing import Any

import numpy as np

from gateformer.compiler.calibration import sample_length
from gateformer.compiler.codes import dequantize, quantize_input
from gateformer.compiler.float_execution import counted, run_float
from gateformer.compiler.graph import Graph, Role, View, whole
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.importer import ImportedModel
from gateformer.compiler.layout import Layout
from gateformer.compiler.lowering_host import HostModel
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QTensor, QuantizedGraph
from gateformer.compiler.reference import reference_session, run_reference
from gateformer.compiler.samples import load_samples, split_samples
from gateformer.compiler.schedule import Schedule
from gateformer.sim.golden_graph import run_quantized
from gateformer.sim.golden_program import GoldenMachine
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import GateformerError
from gateformer.spec.image import ProgramImage
from gateformer.spec.isa import Instruction

SAMPLES = 4
"""Calibration samples that are executed after each pass, spread evenly over all of them."""
FLOAT_TOLERANCE = 1e-4
"""Largest difference of float execution from onnxruntime, relative to the largest output."""


class VerifyError(GateformerError):
    """A pass changed what the model computes: a defect of gateformer."""


class Verifier:
    """Give `check` every pass's name and result, in order. It returns what was compared."""

    def __init__(self, path: Path, calibration: Path, config: AcceleratorConfig) -> None:
        self.path = path
        self.calibration = calibration
        self.config = config
        self.samples: list[dict[str, np.ndarray]] = []
        self.expected: list[dict[str, np.ndarray]] = []
        self.host: HostRunner | None = None
        self.after: HostRunner | None = None
        self.graph: QuantizedGraph | None = None
        self.differences: dict[str, float] = {}
        """How far outputs are from onnxruntime's after each float pass, of the largest output."""
        self.lengths: list[int | None] = []
        """The runtime length of every sample."""
        self.counts: list[dict[str, np.ndarray]] = []
        """Which elements of every sample's outputs do not depend on tokens beyond its length."""
        self.integers: list[dict[str, np.ndarray]] = []
        self.plan: Plan | None = None
        self.scheduled: Schedule | None = None

    def check(self, name: str, result: Any) -> str:
        """Raises VerifyError when the pass changed the model."""
        match result:
            case ImportedModel():
                self._reference(result)
                runner = _nodes_runner(result)
                outputs = [{**result.constants, **runner.run(s)} for s in self.samples]
                return f"{name}: {self._float(name, outputs)}"
            case Graph():
                return f"{name}: {self._float(name, self._lowered(result))}"
            case QuantizedGraph():
                return f"{name}: {self._quantized(name, result)}"
            case Plan():
                self.plan = result
                return f"{name}: {len(result.local)} tensors placed, nothing to execute"
            case Schedule():
                self.scheduled = result
                return f"{name}: {self._program(name, result.instructions)}"
            case list():
                return f"{name}: {self._program(name, result)}"
            case ProgramImage():
                again = ProgramImage.from_bytes(result.to_bytes())
                return f"{name}: {self._program(name, list(again.instructions))}"
        raise TypeError(f"pass {name!r} gave a {type(result).__name__}")

    def _reference(self, model: ImportedModel) -> None:
        """Takes samples; onnxruntime's outputs for them are what every pass is compared with."""
        shapes = {name: model.values[name].shape for name in model.inputs}
        types = {name: model.values[name].dtype for name in model.inputs}
        arrays = load_samples(self.calibration, shapes)
        session = reference_session(self.path)
        samples = split_samples(arrays)
        for index in np.unique(np.linspace(0, len(samples) - 1, SAMPLES).astype(int)):
            sample = samples[index]
            feeds = {name: array.astype(types[name]) for name, array in sample.items()}
            self.samples.append(feeds)
            self.expected.append(run_reference(session, model.outputs, feeds))

    def _lowered(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        self.host, self.after = HostRunner(graph.host.before), HostRunner(graph.host.after)
        outputs = []
        for sample in self.samples:
            values = self.host.run(sample)
            length = sample_length(graph, values)
            self.lengths.append(length)
            tensors = run_float(graph, values, length=length)
            ends = [t for t in graph.tensors.values() if t.role is Role.OUTPUT]
            result = self.after.run({**sample, **{t.name: tensors[t.name] for t in ends}})
            for tensor in ends:
                kept = counted(tensor, whole(tensor), tensors[tensor.name], length).copy()
                tensors[tensor.name] = tensors[tensor.name] + 1
                counted(tensor, whole(tensor), tensors[tensor.name], length)[...] = kept
            other = self.after.run({**sample, **{t.name: tensors[t.name] for t in ends}})
            self.counts.append({key: result[key] == other[key] for key in result})
            outputs.append(result)
        return outputs

    def _float(self, name: str, outputs: list[dict[str, np.ndarray]]) -> str:
        worst = 0.0
        everything = [dict.fromkeys(self.expected[0], np.array(True))] * len(outputs)
        for got, expected, counts in zip(
            outputs, self.expected, self.counts or everything, strict=True
        ):
            for key, reference in expected.items():
                size = max(float(np.abs(reference).max()), 1e-9)
                difference = np.where(counts[key], np.abs(got[key] - reference), 0)
                worst = max(worst, float(difference.max()) / size)
        self.differences[name] = worst
        if not worst <= FLOAT_TOLERANCE:
            raise VerifyError(
                f"after pass {name!r} the model differs from onnxruntime by {worst:.2e} of its "
                "largest output: please report this model"
            )
        return f"equals onnxruntime to {worst:.1e} of the largest output"

    def _quantized(self, name: str, graph: QuantizedGraph) -> str:
        """Compares the graph of one sample with float, what was made of it with that graph."""
        assert self.host is not None and self.after is not None
        if self.graph is not None:
            return self._rearranged(name, graph)
        self.graph = graph
        noise = signal = 0.0
        for i, (sample, expected) in enumerate(zip(self.samples, self.expected, strict=True)):
            tensors = run_quantized(graph, self._codes([i]), self.config, self._lengths([i]))
            self.integers.append({t.name: tensors[t.name] for t in _outputs(graph)})
            outputs = {t.name: dequantize(t, tensors[t.name]) for t in _outputs(graph)}
            for key, got in self.after.run({**sample, **outputs}).items():
                counts = self.counts[i][key]
                noise += float(np.square(got - expected[key])[counts].sum())
                signal += float(np.square(expected[key])[counts].sum())
        decibels = 10 * np.log10(signal / max(noise, 1e-30))
        return f"signal-to-noise ratio to float {decibels:.1f} dB"

    def _rearranged(self, name: str, graph: QuantizedGraph) -> str:
        self.graph = graph
        for part in self._batches():
            lengths = self._lengths(part)
            tensors = run_quantized(graph, self._codes(part), self.config, lengths)
            self._compare(name, {t.name: tensors[t.name] for t in _outputs(graph)}, part)
        return f"every output of a batch of {graph.samples} equals the integer graph of one sample"

    def _batches(self) -> list[list[int]]:
        """The samples that run together; the first one fills up the last batch."""
        assert self.graph is not None
        count, size = len(self.samples), self.graph.samples
        numbers = [*range(count), *[0] * (-count % size)]
        return [numbers[first : first + size] for first in range(0, len(numbers), size)]

    def _lengths(self, part: list[int]) -> list[int]:
        assert self.graph is not None
        return [self.lengths[i] or SIZE_LIMIT for i in part]

    def _compare(self, name: str, outputs: dict[str, np.ndarray], part: list[int]) -> None:
        """Raises VerifyError where a token that counts differs from the integer graph."""
        assert self.graph is not None
        for tensor in _outputs(self.graph):
            parts = outputs[tensor.name].reshape(tensor.samples, -1, tensor.cols)
            for got, i in zip(parts, part, strict=True):
                sample = View(tensor.name, 0, len(got), 0, tensor.cols)
                ours, theirs = (
                    counted(tensor, sample, codes, self.lengths[i])
                    for codes in (got, self.integers[i][tensor.name])
                )
                if not np.array_equal(ours, theirs):
                    raise VerifyError(
                        f"after pass {name!r} output {tensor.name!r} differs from the integer "
                        "graph: please report this model"
                    )

    def _codes(self, part: list[int]) -> dict[str, np.ndarray]:
        """The codes of the input tensors for samples that run together."""
        assert self.host is not None and self.graph is not None
        values = [self.host.run(self.samples[i]) for i in part]
        tensors = [t for t in self.graph.tensors.values() if t.role is Role.INPUT]
        bits = self.config.residual_bits
        return {
            t.name: quantize_input(t, np.concatenate([v[t.name] for v in values]), bits)
            for t in tensors
        }

    def _program(self, name: str, instructions: list[Instruction]) -> str:
        assert self.plan is not None and self.scheduled is not None and self.graph is not None
        constants, config = self.scheduled.constants, self.config
        data = np.frombuffer(bytes(constants.content), np.uint8)
        end = constants.base + len(data)
        machine = GoldenMachine(config, np.zeros(0 if config.dram == "none" else end, np.uint8))
        memory = machine.local if config.dram == "none" else machine.dram
        memory[constants.base : end] = data
        for part in self._batches():
            for tensor_name, codes in self._codes(part).items():
                tensor = self.graph.tensors[tensor_name]
                block = self._block(machine, tensor)
                block[:] = Layout.of(tensor, config.word_bytes).pack(codes)
            machine.lengths[: len(part)] = self._lengths(part)
            machine.run(tuple(instructions))
            outputs = {
                t.name: Layout.of(t, config.word_bytes).unpack(self._block(machine, t).copy())
                for t in _outputs(self.graph)
            }
            self._compare(name, outputs, part)
        return "every output equals the integer graph"

    def _block(self, machine: GoldenMachine, tensor: QTensor) -> np.ndarray:
        assert self.plan is not None
        size = Layout.of(tensor, self.config.word_bytes).words * self.config.word_bytes
        if tensor.name in self.plan.dram:
            start = self.plan.dram[tensor.name]
            return machine.dram[start : start + size]
        start = self.plan.local[tensor.name].address * self.config.word_bytes
        return machine.local[start : start + size]


def _outputs(graph: QuantizedGraph) -> list[QTensor]:
    return [t for t in graph.tensors.values() if t.role is Role.OUTPUT]


def _nodes_runner(model: ImportedModel) -> HostRunner:
    """Runs the imported nodes as they are."""
    whole = HostModel(model, "imported")
    for name in model.inputs:
        value = model.values[name]
        whole.input(name, value.shape, value.dtype)
    for node in model.nodes:
        whole.original(node.proto)
    for name in model.outputs:
        if name in model.values:
            whole.output(name, model.values[name].shape, model.values[name].dtype)
    return HostRunner(whole.build())
