"""What an operation needs of staging, and how much it moves from and to DRAM."""

from typing import Literal

from gateformer.compiler.gemm_geometry import GemmGeometry, group_sizes, modest_group
from gateformer.compiler.graph import View
from gateformer.compiler.in_place import overwritten
from gateformer.compiler.layout import Layout, words_of
from gateformer.compiler.quantized import QCopy, QGemm, QNorm, QOperation, QSoftmax, QuantizedGraph
from gateformer.compiler.residency import Residency
from gateformer.compiler.timing import tile_cycles
from gateformer.spec.config import AcceleratorConfig

Metric = Literal["bytes", "urgency", "time"]
"""How a byte weighs that moves: all the same; more where the array soon waits for it; or less where
it moves while the array computes."""
URGENCY = 4
"""What a byte weighs for which the array soon waits."""
HIDDEN_PART = 5
"""What part of a byte weighs one that moves while the array computes."""
BUS_SHARE = 0.9
"""Part of the bus that data keeps busy."""
RECORD_BYTES = 8


def views_of(op: QSoftmax | QNorm, graph: QuantizedGraph) -> list[View]:
    """The row blocks that a row operation reads and writes, the source first."""
    match op:
        case QSoftmax():
            record = graph.tensors[op.records]
            return [op.source, op.target, View(record.name, op.target.row, op.target.rows, 0, 1)]
        case QNorm():
            return [op.source, *(gain.target for gain in op.gains)]


def _row_words(view: View, residency: Residency) -> int:
    """Words of a row of a view, at most."""
    word = residency.config.word_bytes
    tensor = residency.graph.tensors[view.tensor]
    return words_of(Layout.of(tensor, word).view_elements(view), _bytes(view, residency), word)


def _bytes(view: View, residency: Residency) -> int:
    tensor = residency.graph.tensors[view.tensor]
    return Layout.of(tensor, residency.config.word_bytes).element_bytes


def constant_words(op: QSoftmax | QNorm, word_bytes: int) -> int:
    """Words of the table or the gains that an operation wants."""
    match op:
        case QSoftmax():
            return words_of(op.table.nbytes, 1, word_bytes)
        case QNorm():
            return words_of(op.source.cols, RECORD_BYTES, word_bytes)


def row_group(op: QSoftmax | QNorm, residency: Residency, room: int) -> int | None:
    """The largest group of rows whose blocks fit staging twice; None where none does. A norm's rows
    that come from DRAM come in modest groups, so that the first are there soon."""
    sizes = group_sizes(residency.config)
    if isinstance(op, QNorm) and residency.spilled_rows(op.source):
        sizes = [size for size in sizes if size <= modest_group(residency.config)]
    for group in sizes:
        if row_room(op, residency, group) <= room:
            return group
    return None


def row_room(op: QSoftmax | QNorm, residency: Residency, group: int) -> int:
    """Words of staging for two groups of a softmax or norm, and for its table."""
    spilled = [view for view in views_of(op, residency.graph) if residency.spilled_rows(view)]
    pair = overwritten(op)
    if pair is not None and all(view in spilled for view in pair):
        spilled.remove(pair[1])
    words = sum(2 * min(group, view.rows) * _row_words(view, residency) for view in spilled)
    if residency.config.dram != "none":
        words += constant_words(op, residency.config.word_bytes)
    return words


def least_room(op: QOperation, residency: Residency, *, tiny: bool) -> int:
    """Words of staging without which an operation cannot run; with `tiny` groups, or groups that
    keep the array busy."""
    config = residency.config
    group = group_sizes(config)[-1] if tiny else modest_group(config)
    return _room(op, residency, group, one_chunk=False)


def good_room(op: QOperation, residency: Residency) -> int:
    """Words of staging with which no weight comes from DRAM more than once."""
    return _room(op, residency, modest_group(residency.config), one_chunk=True)


def _room(op: QOperation, residency: Residency, group: int, *, one_chunk: bool) -> int:
    match op:
        case QGemm():
            geometry = GemmGeometry(op, residency.graph, residency)
            return geometry.least_room(group, one_chunk=one_chunk)
        case QSoftmax() | QNorm():
            return row_room(op, residency, group)
        case QCopy():
            spilled = residency.spilled_rows(op.target)
            return 2 * min(spilled, 1) * _row_words(op.target, residency)


def moving_cost(op: QOperation, residency: Residency, room: int, metric: Metric) -> int:
    """What it costs that an operation moves bytes from and to DRAM, with `room` words of staging,
    at least what it needs; as bytes that weigh as much."""
    urgency = URGENCY if metric == "urgency" else 1
    moved = _moved_bytes(op, residency, room, urgency)
    if metric != "time":
        return moved
    return max(moved - _hidden_bytes(op, residency.config), 0) + moved // HIDDEN_PART


def _hidden_bytes(op: QOperation, config: AcceleratorConfig) -> int:
    """Bytes that move while the array computes an operation."""
    if not isinstance(op, QGemm):
        return 0
    tiles = -(-op.a.rows // config.rows) * -(-op.b.rows // config.cols)
    return int(tiles * tile_cycles(config, op.a.cols) * config.bus_bytes * BUS_SHARE)


def _moved_bytes(op: QOperation, residency: Residency, room: int, urgency: int) -> int:
    """Those for which the array soon waits count `urgency` times: of softmax and norm, and of right
    operands that are no weights."""
    match op:
        case QGemm():
            return _gemm_bytes(op, residency, room, urgency)
        case QSoftmax() | QNorm():
            moved = sum(_view_bytes(view, residency) for view in views_of(op, residency.graph))
            return urgency * moved
        case QCopy():
            return _view_bytes(op.target, residency)


def _view_bytes(view: View, residency: Residency) -> int:
    words = residency.spilled_rows(view) * _row_words(view, residency)
    return words * residency.config.word_bytes


def _gemm_bytes(op: QGemm, residency: Residency, room: int, urgency: int) -> int:
    geometry = GemmGeometry(op, residency.graph, residency)
    tiling = geometry.choose(room)
    total = _view_bytes(op.out, residency)
    if op.residual is not None:
        total += _view_bytes(op.residual, residency)
    if tiling is None:
        return total + _view_bytes(op.a, residency) + _view_bytes(op.b, residency)
    cost = 1 if geometry.b_constant or geometry.a_constant else urgency
    return total + cost * tiling.moved * residency.config.word_bytes
