"""How many cycles a program takes at least, whatever its schedule, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateformer.compiler.layout import words_of
from gateformer.compiler.timing import tile_cycles
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import SDRAM, DramTiming
from gateformer.spec.image import Descriptor, ProgramImage
from gateformer.spec.isa import Instruction, Opcode


@dataclass(frozen=True)
class Bound:
    """Cycles that no schedule can beat, and their parts.

    products: the model's own multiply-accumulates at rows * cols * lanes a cycle. rounding: what
    the array takes beyond them, since tiles are whole and take at least `cols` cycles. first_load:
    from the start to the first operands at the array. last_store: from the last tile to its last
    byte in DRAM. dram: what external memory takes for every constant, input and output once, with
    its row misses and refresh; 0 where there is none.
    """

    products: int
    rounding: int
    first_load: int
    last_store: int
    dram: int

    @property
    def array(self) -> int:
        """Cycles that the array takes for the tiles of the program."""
        return self.products + self.rounding

    @property
    def cycles(self) -> int:
        """The bound: the array with its first operands and last results, or external memory."""
        return max(self.array + self.first_load + self.last_store, self.dram)


def bound(
    config: AcceleratorConfig,
    image: ProgramImage,
    timing: DramTiming = SDRAM,
    lengths: Sequence[int] | None = None,
) -> Bound:
    """The bound of a program. lengths: how many tokens of every sample count, all where None."""
    if lengths is None:
        lengths = [image.tokens or 1] * image.samples
    products = -(-image.macs(lengths) // config.macs)
    gemms = [i for i in image.at_lengths(lengths) if i.opcode is Opcode.GEMM]
    array = sum(array_cycles(config, i) for i in gemms)
    first = last = moved = 0
    if config.dram != "none":
        passing = [d for d in (*image.inputs, *image.outputs) if d.space == "dram"]
        moved = len(image.data) + sum(_bytes(config, image, d, lengths) for d in passing)
    if gemms and config.dram != "none":
        k_bytes = words_of(gemms[0]["k"], 1, config.word_bytes) * config.word_bytes
        operands = min(config.rows, gemms[0]["m"]) + min(config.cols, gemms[0]["n"])
        first = transfer_cycles(config, operands * k_bytes, timing)
        size = config.rows * config.cols
        last = -(-size // config.epilogue_lanes) + size // config.bus_bytes
    return Bound(products, array - products, first, last, transfer_cycles(config, moved, timing))


def _bytes(
    config: AcceleratorConfig, image: ProgramImage, d: Descriptor, lengths: Sequence[int]
) -> int:
    """Of an input or output, what is moved at these lengths at least."""
    row = words_of(d.cols, 2 if d.kind == "int16" else 1, config.word_bytes) * config.word_bytes
    if image.tokens is None or (d.row_token is None and not d.col_tokens):
        return d.rows * row
    return d.rows * row * sum(lengths) // (image.tokens * image.samples)


def array_cycles(config: AcceleratorConfig, gemm: Instruction) -> int:
    """Cycles in which the array steps for a GEMM instruction."""
    tiles = -(-gemm["m"] // config.rows) * -(-gemm["n"] // config.cols)
    return tiles * tile_cycles(config, gemm["k"])


def transfer_cycles(config: AcceleratorConfig, size: int, timing: DramTiming) -> int:
    """Cycles of the bus for `size` bytes in one run, with row misses and refresh."""
    beats = -(-size // config.bus_bytes)
    bursts = -(-size // config.burst_bytes)
    misses = -(-size // timing.row_bytes)
    cycles = beats + bursts + misses * timing.miss_cycles
    refreshes = cycles // timing.refresh_every
    return cycles + refreshes * (timing.refresh_cycles + timing.miss_cycles)
