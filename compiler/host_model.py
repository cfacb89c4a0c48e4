"""The host's share of a compiled model at run time: between float arrays and codes in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from gateformer.compiler.codes import encode
from gateformer.compiler.host_execution import HostRunner
from gateformer.compiler.layout import Layout
from gateformer.compiler.runtime_length import length_of
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import DataError
from gateformer.spec.image import Descriptor, ProgramImage

Sample = Mapping[str, np.ndarray]
"""Float arrays by ONNX name."""


@dataclass(frozen=True)
class Batch:
    """What the accelerator gets for one run: the bytes of every input matrix, and the runtime
    length of every sample (0 where the batch has a sample less)."""

    content: Mapping[str, np.ndarray]
    lengths: tuple[int, ...]


def layout_of(descriptor: Descriptor, config: AcceleratorConfig) -> Layout:
    """How a described matrix lies in the words of a config's memory."""
    d = descriptor
    return Layout(d.rows, d.cols // d.segment, d.segment, d.kind, config.word_bytes)


class HostModel:
    """Runs the host's models before and after the accelerator."""

    def __init__(
        self,
        config: AcceleratorConfig,
        image: ProgramImage,
        before: onnx.ModelProto,
        after: onnx.ModelProto,
    ) -> None:
        self._config = config
        self._image = image
        self._before = HostRunner(before)
        self._after = HostRunner(after)
        matrices = {descriptor.name for descriptor in image.inputs}
        self._masks = [name for name in self._before.outputs if name not in matrices]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the model's inputs."""
        return self._before.inputs

    def encode(self, samples: Sequence[Sample], length: int | None = None) -> Batch:
        """The input matrices of up to `image.samples` samples.

        length: how many tokens count, at most; masks may leave less. Raises DataError for a mask
        or a length that the program cannot run with.
        """
        results = [self._before.run(sample) for sample in samples]
        lengths = [self._length(result, length) for result in results]
        missing = self._image.samples - len(samples)
        content = {}
        for d in self._image.inputs:
            bits = 8 if d.kind == "int8" else self._config.residual_bits
            codes = [encode(result[d.name], d.scale, d.zero, bits) for result in results]
            codes += [codes[0]] * missing
            content[d.name] = layout_of(d, self._config).pack(np.concatenate(codes))
        empty = SIZE_LIMIT if self._image.tokens is None else 0
        return Batch(content, (*lengths, *[empty] * missing))

    def _length(self, result: Mapping[str, np.ndarray], length: int | None) -> int:
        tokens, least = self._image.tokens, self._image.least_tokens
        if tokens is None:
            if length is not None:
                raise DataError("this model has no runtime length: it always runs whole")
            return SIZE_LIMIT
        results = {descriptor.name for descriptor in self._image.outputs}
        if length is not None and set(self._after.inputs) - results:
            raise DataError(
                "what the host does with this model's results depends on its inputs: give a "
                "shorter attention mask instead of a length"
            )
        if length is not None and not least <= length <= tokens:
            raise DataError(f"the length {length} is not between {least} and {tokens} tokens")
        counted = length_of({name: result[name] for name in self._masks}, tokens, least)
        return counted if length is None else min(counted, length)

    def decode(
        self, outputs: Mapping[str, np.ndarray], samples: Sequence[Sample], lengths: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        """The model's outputs (ONNX names) for every sample.

        outputs: the bytes of every output matrix. lengths: those that the batch ran with; what
        belongs to tokens beyond is 0.
        """
        feeds = [dict(sample) for sample in samples]
        for d in self._image.outputs:
            codes = layout_of(d, self._config).unpack(outputs[d.name])
            values = (d.scale * (codes - d.zero)).reshape(d.samples, -1, d.cols)
            for feed, value, length in zip(feeds, values, lengths, strict=False):
                if d.row_token is not None:
                    value[max(length - d.row_token, 0) :] = 0
                if d.col_tokens:
                    value[:, length:] = 0
                feed[d.name] = value
        return [self._after.run(feed) for feed in feeds]
