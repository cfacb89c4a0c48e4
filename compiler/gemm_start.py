"""The blocks of a program's first product, which finds the array idle and the rings empty.

Until the first rows of A and the first block of B have come, the array waits. Where A lies in local
memory, a narrow first block shortens that. Where A is an input in DRAM, all of it comes during the
first block, which must be wide enough for the work on it to take as long as that; then the next
block must fit the ring beside it.
"""

from dataclasses import replace

from gateformer.compiler.gemm_geometry import Block, GemmGeometry, Tiling
from gateformer.compiler.timing import tile_cycles

LOCAL_WORD = 2
"""Cycles in which a word of B comes from local memory while A does, too."""


def _work(geometry: GemmGeometry, tiling: Tiling) -> int:
    """Cycles that the array works on a column of B."""
    config = geometry.config
    tiles = sum(-(-rows // config.rows) for chunk in tiling.chunks for _, rows in chunk)
    return tiles * tile_cycles(config, geometry.k) // config.cols


def _load(geometry: GemmGeometry, words: int) -> int:
    """Cycles in which words come from DRAM."""
    return words * geometry.word // geometry.config.bus_bytes


def narrow_start(geometry: GemmGeometry, tiling: Tiling) -> Tiling:
    """A first block as narrow as can be while the work on it takes as long as the next one's way
    to the ring: where A lies in local memory."""
    first, *others = tiling.blocks
    load = geometry.k_words * LOCAL_WORD
    if geometry.b_staged or geometry.b_constant:
        load = _load(geometry, geometry.k_words)
    work = _work(geometry, tiling)
    width = -(-first.count * load // (load + work) // geometry.unit) * geometry.unit
    if len(tiling.parts) > 1 or len(tiling.chunks) > 1 or width >= first.count:
        return tiling
    return replace(tiling, blocks=(*_split(first, [width, first.count]), *others))


def balanced_start(geometry: GemmGeometry, tiling: Tiling, room: int) -> Tiling:
    """A first block wide enough for the rest of A, the residual's part and what the ring holds of
    the next block to come during the work on it: where A comes from DRAM. room: words of
    staging."""
    if len(tiling.parts) > 1 or len(tiling.chunks) > 1 or not tiling.holds_a:
        return tiling
    if geometry.a_constant or not geometry.b_constant:
        return tiling
    config, (groups,) = geometry.config, tiling.chunks
    ring = min(config.b_depth // geometry.k_words * config.cols, config.p_depth)
    rows = [count for _, count in groups]
    load, unit = _load(geometry, geometry.k_words), geometry.unit
    meanwhile = _load(geometry, (sum(rows) - rows[0]) * geometry.k_words) + ring * load
    residual = sum(rows) * 2 // config.bus_bytes if geometry.residual_staged else 0
    gain = _work(geometry, tiling) - residual + load
    width = -(-meanwhile // max(gain, 1) // unit) * unit
    if not tiling.blocks[0].count < width < ring - unit:
        return tiling
    widths = [width, (ring - width) // unit * unit, ring // 2 // unit * unit]
    blocks = _split(Block(0, 0, geometry.n), widths)
    other = geometry.tiling_of(blocks, max(rows), 1, room, streams=False)
    return tiling if other is None or len(other.chunks) > 1 else other


def _split(block: Block, widths: list[int]) -> tuple[Block, ...]:
    """Blocks of these widths; the last one is repeated until all columns are in one."""
    parts: list[Block] = []
    start = 0
    while start < block.count:
        width = min(widths[min(len(parts), len(widths) - 1)], block.count - start)
        parts.append(Block(block.column + start, block.row + start, width))
        start += width
    return tuple(parts)
