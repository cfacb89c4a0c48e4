"""How one contraction is cut: parts of k, blocks of B, groups and chunks of rows of A.

The loops are, from the outside: chunks of rows of A, blocks of columns (rows of B), parts of k,
groups of rows. A chunk is as many groups as staging holds of A, so A comes from DRAM once and B
once for each chunk; all groups are one chunk where A lies in local memory. All parts but the last
add int32 sums up in staging, one block at a time. Or A *streams*: each group comes anew for each
block, and blocks are as wide as staging holds sums of all rows; that moves less where A is large.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.quantized import QGemm, QuantizedGraph
from gateformer.compiler.residency import Residency, row_groups
from gateformer.spec.config import SIZE_LIMIT, AcceleratorConfig
from gateformer.spec.errors import CapacityError

GROUP_ROWS = 32
"""Rows of an operation that one instruction computes: the grain of overlap between engines."""
PIECES = 6
"""Pieces in which B passes through staging at a time, so that DMA and loader overlap."""
PIECE_WORDS = 512
"""Words of a piece at most: small ones fit into what other loads leave free of staging."""
STREAM_WORDS = 16
"""Words that a part of a row of A has at least where A streams: shorter ones waste the bus."""
LEAST_TILES = 3
"""Tiles of B that staging holds at least."""


def group_unit(config: AcceleratorConfig) -> int:
    """Group sizes are multiples of it: of the array's rows and of the scale records in a word."""
    return math.lcm(config.rows, max(1, config.word_bytes // 8))


def group_rows(config: AcceleratorConfig) -> int:
    """GROUP_ROWS made a multiple of group_unit."""
    unit = group_unit(config)
    return max(1, GROUP_ROWS // unit) * unit


def modest_group(config: AcceleratorConfig) -> int:
    """The smallest group that keeps the array busy: a quarter of GROUP_ROWS."""
    sizes = group_sizes(config)
    return min((size for size in sizes if size >= GROUP_ROWS // 4), default=sizes[-1])


def group_sizes(config: AcceleratorConfig) -> list[int]:
    """The sizes that a group may have, largest first."""
    unit, size = group_unit(config), group_rows(config)
    sizes = [size]
    while size > unit:
        size = max(size // 2 // unit, 1) * unit
        sizes.append(size)
    return sizes


@dataclass(frozen=True)
class Block:
    """Columns of the output computed with one block of B. column: the first one's position in the
    output's rows, padding counted; row: of the view of B (a column, where B is a constant)."""

    column: int
    row: int
    count: int


@dataclass(frozen=True)
class Tiling:
    """blocks of columns; parts of the contraction (positions of elements, padding counted); chunks:
    lists of groups (first row, rows). spare: words of staging that nothing of A needs. holds_a:
    whether rows of A stay in staging for several blocks; else they come for each use. moved: words
    of A and B from DRAM."""

    blocks: tuple[Block, ...]
    parts: tuple[range, ...]
    chunks: tuple[tuple[tuple[int, int], ...], ...]
    spare: int
    holds_a: bool
    moved: int


class GemmGeometry:
    """The sizes of one Gemm and its tilings for a given room in staging."""

    def __init__(self, op: QGemm, graph: QuantizedGraph, residency: Residency) -> None:
        self.op, self.graph, self.residency = op, graph, residency
        self.config = config = residency.config
        self.word = config.word_bytes
        self.a_constant = graph.is_constant(op.a)
        self.b_constant = graph.is_constant(op.b)
        self.a_layout = Layout.of(graph.tensors[op.a.tensor], self.word)
        self.b_layout = Layout.of(graph.tensors[op.b.tensor], self.word)
        self.out_layout = Layout.of(graph.tensors[op.out.tensor], self.word)
        layout, view = (self.b_layout, op.b) if self.a_constant else (self.a_layout, op.a)
        self.k_columns = layout.physical_columns(view)
        self.k = layout.view_elements(view)
        self.k_words = words_of(self.k, 1, self.word)
        self.by_row = op.by_row or isinstance(op.records, str)

    @cached_property
    def segments(self) -> list[Block]:
        """The runs of columns that blocks divide. A constant B is laid out like the output's
        columns, so that an int8 row's padding is computed as zeros from zero weights, since a
        contraction of two activations sums over it. Of activations, each segment of the output is a
        run of its own."""
        op, layout = self.op, self.out_layout
        if self.b_constant:
            if layout.kind == "int8":
                segments = op.out.cols // layout.segment
                return [Block(0, 0, max(segments, 1) * layout.padded_segment)]
            return [Block(0, 0, layout.view_elements(op.out))]
        size = min(layout.segment, op.out.cols)
        return [
            Block(column // size * layout.padded_segment, column, size)
            for column in range(0, op.out.cols, size)
        ]

    @property
    def n(self) -> int:
        """Columns computed with a constant B, padding counted."""
        return self.segments[0].count

    @property
    def a_staged(self) -> int:
        """Rows of A that pass through staging."""
        return self.residency.spilled_rows(self.op.a)

    @property
    def b_staged(self) -> int:
        return self.residency.spilled_rows(self.op.b)

    @property
    def out_staged(self) -> int:
        return self.residency.spilled_rows(self.op.out)

    @property
    def residual_staged(self) -> int:
        return 0 if self.op.residual is None else self.residency.spilled_rows(self.op.residual)

    @property
    def record_staged(self) -> bool:
        records = self.op.records
        if isinstance(records, str):
            return self.residency.resident(records) < self.graph.tensors[records].rows
        return self.config.dram != "none"

    def _part(self, parts: int) -> int:
        """Words of the longest of equally long parts of k."""
        return -(-self.k_words // parts)

    @cached_property
    def _least_parts(self) -> int:
        """As few parts as rings and k_max allow."""
        longest = self.config.k_max // self.word
        least = -(-self.k_words // longest)
        for count in range(least, self.k_words + 1):
            if self._ring_columns(self._part(count), count) >= self._least_columns:
                return count
        raise CapacityError(
            f"{self.op.name!r}: {self._least_columns} rows of B of one word do not fit the rings "
            f"of config {self.config.name!r}: raise b_depth or p_depth"
        )

    def _parts(self, count: int) -> tuple[range, ...]:
        """So many parts, or one less where words do not divide."""
        step = self._part(count) * self.word
        return tuple(range(first, min(first + step, self.k)) for first in range(0, self.k, step))

    @property
    def unit(self) -> int:
        """Blocks are multiples of it: whole tiles, and whole words of the output."""
        return math.lcm(self.config.cols, self.word)

    @property
    def _least_columns(self) -> int:
        return min(self.unit, max(block.count for block in self.segments))

    def _ring_columns(self, k_words: int, parts: int) -> int:
        """Columns of a block: as many as half the B ring and half the parameter ring hold, so that
        the next block loads meanwhile; or as the whole B ring holds, where half is too small."""
        config = self.config
        limit = min(config.b_depth // 2 // k_words * config.cols, SIZE_LIMIT)
        if limit < self._least_columns:
            limit = config.b_depth // k_words * config.cols
        if not self.by_row or parts > 1:
            limit = min(limit, config.p_depth // 2)
        return limit

    def _blocks(self, limit: int) -> tuple[Block, ...]:
        blocks = []
        for run in self.segments:
            size = run.count
            if size > limit:
                count = -(-run.count // (limit // self.unit * self.unit))
                size = -(-run.count // count // self.unit) * self.unit
            blocks += [
                Block(run.column + at, run.row + at, min(size, run.count - at))
                for at in range(0, run.count, size)
            ]
        return tuple(blocks)

    def _row_words(self, columns: int) -> tuple[int, int]:
        """Words of one row of a block, in the output and in the residual, where they pass through
        staging."""
        out = words_of(columns, self.out_layout.element_bytes, self.word)
        return (
            out if self.out_staged else 0,
            words_of(columns, 2, self.word) if self.residual_staged else 0,
        )

    def _fixed(self, group: int, columns: int, parts: int) -> int:
        """Words for everything but A and partial sums: outputs, which go over residuals, twice, B,
        records, table."""
        words = 2 * group * max(self._row_words(columns))
        if self.b_staged:
            tiles = min(LEAST_TILES, -(-columns // self.config.cols))
            words += tiles * self.config.cols * self._part(parts)
        if self.record_staged or parts > 1:
            records = group if self.by_row and parts == 1 else columns
            words += words_of(max(records, group if self.by_row else 0), 8, self.word)
        if self.op.activation is not None:
            words += words_of(self.op.activation.nbytes, 1, self.word)
        return words

    def _tiling(
        self, group: int, columns: int, parts: int, room: int, *, streams: bool
    ) -> Tiling | None:
        """The tiling with groups and blocks of at most these sizes, if it fits. It has one chunk
        where A streams."""
        return self.tiling_of(self._blocks(columns), group, parts, room, streams=streams)

    def tiling_of(
        self, blocks: tuple[Block, ...], group: int, parts: int, room: int, *, streams: bool
    ) -> Tiling | None:
        """The tiling with these blocks, if it fits."""
        once = len(blocks) == 1 or streams
        fixed, groups = self._demand(blocks, group, parts, once=once)
        spare = room - fixed
        chunks: list[list[tuple[int, int]]] = []
        used, most = spare + 1, 0
        for row, rows, words in groups:
            if words > spare:
                return None
            if used + words > spare:
                chunks.append([])
                used = 0
            chunks[-1].append((row, rows))
            used += words
            most = max(most, used)
        if streams and len(chunks) > 1:
            return None
        moved = self.a_staged * self.k_words * (len(blocks) if once else 1)
        moved += self.b_staged * self.k_words * len(chunks)
        return Tiling(
            blocks,
            self._parts(parts),
            tuple(tuple(chunk) for chunk in chunks),
            spare - most,
            len(blocks) > 1 and not streams,
            moved,
        )

    def _demand(
        self, blocks: tuple[Block, ...], group: int, parts: int, *, once: bool
    ) -> tuple[int, list[tuple[int, int, int]]]:
        """Words of staging that a tiling needs whatever its chunks are, and its groups: first row,
        rows, and the words that each adds to its chunk. once: whether A is read only once for each
        time that it comes."""
        columns = max(block.count for block in blocks)
        fixed = self._fixed(group, columns, parts)
        groups = self._groups(group)
        if once and self.a_staged:
            fixed += 2 * max(rows for _, rows in groups) * self._part(parts)
        partial = words_of(columns, 4, self.word) if parts > 1 else 0
        resident = self.residency.resident_rows(self.op.a)
        held = 0 if once else self.k_words
        return fixed, [
            (row, rows, rows * (partial + held * (row >= resident))) for row, rows in groups
        ]

    def _groups(self, group: int) -> list[tuple[int, int]]:
        others = [self.op.a]
        if self.op.residual is not None:
            others.append(self.op.residual)
        return row_groups(self.residency, self.op.out, others, group)

    def _columns(self, group: int, parts: int, room: int) -> int:
        """Columns of a block that the rings hold, and an eighth of staging of each of output and
        residual."""
        limit = self._ring_columns(self._part(parts), parts)
        rows = min(group, self.op.a.rows)
        for words, size in zip(
            self._row_words(self._least_columns), (self.out_layout.element_bytes, 2), strict=True
        ):
            if words:
                limit = min(limit, max(room // 8 // rows * self.word // size, self._least_columns))
        return limit

    def choose(self, room: int) -> Tiling | None:
        """The tiling that moves least in `room` words of staging, then the largest groups and
        blocks; None where none fits. Groups below a quarter of GROUP_ROWS only where nothing else
        fits."""
        best: Tiling | None = None
        for group in group_sizes(self.config):
            if best is not None and group < GROUP_ROWS // 4:
                break
            tilings = [self._widest(group, self._least_parts, room, streams=False)]
            if tilings[0] is None or len(tilings[0].chunks) > 1:
                tilings += [
                    self._widest(group, parts, room, streams=True) for parts in self._stream_parts
                ]
            for tiling in tilings:
                if tiling is not None and (best is None or tiling.moved < best.moved):
                    best = tiling
        return best

    @cached_property
    def _stream_parts(self) -> list[int]:
        """Numbers of parts to try where rows of A stream: none where weights are A, or where a
        runtime length cuts the contraction."""
        if not self.b_constant or not self.a_staged:
            return []
        counts = [self._least_parts]
        while 2 * counts[-1] * STREAM_WORDS <= self.k_words:
            counts.append(2 * counts[-1])
        return counts

    def _widest(self, group: int, parts: int, room: int, *, streams: bool) -> Tiling | None:
        """The tiling with the widest blocks that fit."""
        columns = self._columns(group, parts, room)
        while True:
            tiling = self._tiling(group, columns, parts, room, streams=streams)
            if tiling is not None or columns == self._least_columns:
                return tiling
            columns = max(columns * 3 // 4, self._least_columns)

    def least_room(self, group: int, *, one_chunk: bool) -> int:
        """Words of staging that a tiling with groups of so many rows needs; one_chunk: with B
        coming only once."""
        blocks = self._blocks(self._least_columns)
        fixed, groups = self._demand(blocks, group, self._least_parts, once=len(blocks) == 1)
        words = [words for _, _, words in groups]
        return fixed + (sum(words) if one_chunk else max(words))


def columns_are_cut(graph: QuantizedGraph, name: str, config: AcceleratorConfig) -> bool:
    """Whether a runtime length cuts the columns of a tensor where they are softmaxed and summed
    over. Not those of a sum in parts: a part without elements would write nothing, so softmax
    writes zeros up to the end there."""
    tensor = graph.tensors[name]
    unit = math.lcm(config.cols, config.word_bytes)
    longest = min(config.k_max // config.word_bytes, config.b_depth // (unit // config.cols))
    words = words_of(tensor.segment, 1, config.word_bytes)
    return graph.tokens is not None and tensor.col_tokens and words <= longest
