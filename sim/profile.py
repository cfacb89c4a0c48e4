"""What each layer and each engine of a run took, and what they waited for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateformer.compiler.accesses import Block, accesses
from gateformer.compiler.bound import Bound, bound
from gateformer.compiler.folder import CompiledModel
from gateformer.compiler.host_model import Sample
from gateformer.compiler.timeline import Reason, Span, Timeline
from gateformer.sim.recording import Recording, predicted
from gateformer.sim.simulate import BUILD, simulate
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.errors import ImageError, RunError
from gateformer.spec.isa import Engine, Instruction, Opcode


@dataclass
class Share:
    """What some spans of one engine took.

    busy: cycles in which it worked. waits: cycles in which it stood still, by reason. read,
    written: bytes of local memory. loaded, stored: bytes of external memory.
    """

    instructions: int = 0
    busy: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    loaded: int = 0
    stored: int = 0

    @property
    def bytes(self) -> int:
        """Of local and external memory; what DMA moves counts once."""
        return self.loaded + self.stored or self.read + self.written

    def as_dict(self, cycles: int) -> dict[str, Any]:
        """Plain values; utilization and bandwidth are those of so many cycles."""
        return {
            "instructions": self.instructions,
            "busy_cycles": self.busy,
            "waiting_cycles": {reason.value: self.waits.get(reason.value, 0) for reason in Reason},
            "utilization": self.busy / max(cycles, 1),
            "local_bytes_read": self.read,
            "local_bytes_written": self.written,
            "dram_bytes_loaded": self.loaded,
            "dram_bytes_stored": self.stored,
            "bytes_per_cycle": self.bytes / max(cycles, 1),
        }


@dataclass
class Layer:
    """One operation of the graph: its first and last cycle at any engine, its multiply-accumulates,
    and its share of every engine that it used.

    cycles: of the array's time, those in which it worked or waited for this operation. All layers'
    cycles add up to the run's but for the end, when the last results leave.
    """

    name: str
    kind: str
    macs: int = 0
    start: int = 0
    end: int = 0
    cycles: int = 0
    engines: dict[Engine, Share] = field(default_factory=dict)

    def utilization(self, config: AcceleratorConfig) -> float:
        return self.macs / (config.macs * self.cycles) if self.cycles else 0.0

    @property
    def waits(self) -> dict[str, int]:
        """Cycles that the array waited for this operation, by reason."""
        return self.engines[Engine.ARRAY].waits if Engine.ARRAY in self.engines else {}

    @property
    def dram_bytes(self) -> int:
        return sum(share.loaded + share.stored for share in self.engines.values())


@dataclass(frozen=True)
class Profile:
    """A run of a compiled model. recording: its timeline and instructions. macs: of the model's own
    products. owners: the layer of every instruction; the number of layers for what only ends the
    program."""

    config: AcceleratorConfig
    recording: Recording
    macs: int
    bound: Bound
    engines: dict[Engine, Share]
    layers: tuple[Layer, ...]
    owners: tuple[int, ...]

    @property
    def timeline(self) -> Timeline:
        return self.recording.timeline

    @property
    def utilization(self) -> float:
        return self.macs / (self.config.macs * self.timeline.cycles)

    @property
    def attainable(self) -> float:
        """The utilization at the bound."""
        return self.macs / (self.config.macs * self.bound.cycles)

    @property
    def idle(self) -> list[Layer]:
        """The layers that kept the array waiting, the worst first."""
        late = [layer for layer in self.layers if sum(layer.waits.values())]
        return sorted(late, key=lambda layer: -sum(layer.waits.values()))

    def layer_of(self, span: Span) -> str:
        """The name of the layer that a span's instruction serves."""
        owner = self.owners[span.index]
        return self.layers[owner].name if owner < len(self.layers) else "end"

    def as_dict(self) -> dict[str, Any]:
        """The profile as plain values, cycles and bytes."""
        config, timeline = self.config, self.timeline
        cycles = max(timeline.cycles, 1)
        return {
            "config": config.name,
            "cycles": timeline.cycles,
            "model_macs": self.macs,
            "utilization": self.utilization,
            "bound": {
                "cycles": self.bound.cycles,
                "utilization": self.attainable,
                "products": self.bound.products,
                "rounding": self.bound.rounding,
                "first_load": self.bound.first_load,
                "last_store": self.bound.last_store,
                "dram": self.bound.dram,
            },
            "dram": {
                "bytes": timeline.dram_beats * config.bus_bytes,
                "bytes_per_cycle": timeline.dram_beats * config.bus_bytes / cycles,
                "bus_share": timeline.dram_beats / cycles,
                "occupied_cycles": timeline.dram_cycles,
            },
            "engines": {e.name: share.as_dict(cycles) for e, share in self.engines.items()},
            "layers": [self._layer(layer) for layer in self.layers],
        }

    def _layer(self, layer: Layer) -> dict[str, Any]:
        span = max(layer.end - layer.start, 1)
        return {
            "name": layer.name,
            "kind": layer.kind,
            "macs": layer.macs,
            "start": layer.start,
            "end": layer.end,
            "cycles": layer.cycles,
            "utilization": layer.utilization(self.config),
            "dram_bytes": layer.dram_bytes,
            "dram_bytes_per_cycle": layer.dram_bytes / span,
            "engines": {e.name: share.as_dict(span) for e, share in layer.engines.items()},
        }


def profile_model(
    model: CompiledModel,
    samples: Sequence[Sample],
    *,
    engine: Literal["rtl", "model"] = "rtl",
    build: Path = BUILD,
    progress: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profiles a run of the first batch of the samples, on the RTL or by the cycle model.

    Raises what `simulate` raises, RunError too when the RTL differs from the golden model.
    """
    first = samples[: model.image.samples]
    lengths = model.host().encode(first, None).lengths
    if engine == "model":
        recording = predicted(model.config, model.image.at_lengths(lengths))
        return profile(model, recording, model.image.macs(lengths[: len(first)]), lengths)
    (run,) = simulate(model, first, build=build, record=True, progress=progress)
    if not run.bit_exact:
        raise RunError(
            "the RTL's results differ from the golden model's: its profile means nothing"
        )
    assert run.recording is not None
    return profile(model, run.recording, run.macs, lengths)


def profile(
    model: CompiledModel, recording: Recording, macs: int, lengths: Sequence[int] | None = None
) -> Profile:
    """Sums up a run. macs: of the model's own products in this run. lengths: how many tokens of
    every sample counted, all where None. Raises ImageError for a folder that does not name its
    layers."""
    config, timeline, program = model.config, recording.timeline, recording.program
    if model.layers is None:
        raise ImageError("the compiled model does not name its layers: compile it again")
    layers = tuple(map(Layer, model.layers.names, model.layers.kinds))
    owners = model.layers.owners
    engines = {engine: Share() for engine in Engine}
    for engine in Engine:
        last = 0
        for span in timeline.of(engine):
            instruction = program[span.index]
            _count(engines[engine], config, span, instruction)
            if owners[span.index] == len(layers):
                continue
            layer = layers[owners[span.index]]
            _count(layer.engines.setdefault(engine, Share()), config, span, instruction)
            if engine is Engine.ARRAY:
                layer.macs += instruction["m"] * instruction["n"] * instruction["k"]
                layer.cycles += span.end - last
                last = span.end
            layer.start = min(layer.start, span.start) if layer.end else span.start
            layer.end = max(layer.end, span.end)
    limit = bound(config, model.image, lengths=lengths)
    return Profile(config, recording, macs, limit, engines, layers, owners)


def _count(share: Share, config: AcceleratorConfig, span: Span, instruction: Instruction) -> None:
    share.instructions += 1
    share.busy += span.busy
    for reason, cycles in span.waits.items():
        share.waits[reason.value] = share.waits.get(reason.value, 0) + cycles
    for access in accesses(config, instruction):
        if access.engine is span.engine:
            share.read += config.word_bytes * _words(access.reads)
            share.written += config.word_bytes * _words(access.writes)
    match instruction.opcode:
        case Opcode.DMA_LOAD:
            share.loaded += instruction["rows"] * instruction["words"] * config.word_bytes
        case Opcode.DMA_STORE:
            share.stored += instruction["rows"] * instruction["words"] * config.word_bytes


def _words(blocks: Iterable[Block]) -> int:
    return sum(block.rows * block.words for block in blocks)
