"""The steps of softmax, norm and copies: groups of rows, in local memory or through staging."""

from collections.abc import Callable

from gateformer.compiler.emission import Emission
from gateformer.compiler.graph import View
from gateformer.compiler.layout import Layout
from gateformer.compiler.plan import codes_of
from gateformer.compiler.quantized import Gain, QCopy, QNorm, QSoftmax
from gateformer.compiler.residency import row_groups
from gateformer.compiler.steps import Load
from gateformer.compiler.traffic import row_group, views_of
from gateformer.spec.arithmetic import NORM_SHIFTS, pack_gain_records
from gateformer.spec.errors import CapacityError
from gateformer.spec.isa import Opcode


def _groups(s: Emission, op: QSoftmax | QNorm) -> list[tuple[int, int]]:
    source, first, *others = views_of(op, s.graph)
    group = row_group(op, s.residency, s.room)
    if group is None:
        raise CapacityError(
            f"{op.name!r}: no group of rows fits the {s.room * s.word} bytes that the activations "
            f"of config {s.config.name!r} leave free: raise local_kib"
        )
    return row_groups(s.residency, first, [source, *others], group)


def _wanted(s: Emission, op: QSoftmax | QNorm, groups: list[tuple[int, int]]) -> int:
    """The last step that makes the first group of an operation: its table should be there then."""
    row, rows = groups[0]
    return max(s.written(s.rows_of(op.source, row, rows)), 0)


def softmax(s: Emission, op: QSoftmax) -> None:
    """Appends the steps of a softmax to the emission's."""
    length = op.source.cols
    if length > s.config.softmax_length:
        raise CapacityError(
            f"{op.name!r}: a softmax row of {length} does not fit config "
            f"{s.config.name!r} ({s.config.softmax_length}): raise softmax_length"
        )
    groups = _groups(s, op)
    wanted = _wanted(s, op, groups)
    loads = s.table_load("exp", op.table, Opcode.EXP_TABLE, 256, wanted=wanted)
    for row, rows in groups:
        _softmax_step(s, op, row, rows, loads)
        loads = []


def _softmax_step(s: Emission, op: QSoftmax, row: int, rows: int, loads: list[Load]) -> None:
    step = s.new_step()
    step.loads += loads
    source = s.read_rows(step, s.rows_of(op.source, row, rows))
    target = s.write_rows(step, s.rows_of(op.target, row, rows), over=source)
    # A group's records start on a word of their own.
    record = s.write_rows(step, View(op.records, op.target.row + row, rows, 0, 1))
    sizes = (
        s.sizes().rows("rows", rows, op.target, row).columns("length", op.source.cols, op.target)
    )
    bound = op.bound + row * op.causal
    if s.graph.tokens is not None and s.tensor(op.source).col_tokens:
        # Scores behind the length are not computed.
        sizes.cut("bound", bound, 0, sizes.values.get("sample", s.tensor(op.source).sample))
    else:
        sizes.values["bound"] = bound

    def emit() -> None:
        s.put(
            Opcode.SOFTMAX,
            causal=int(op.causal),
            source_address=source.address(),
            source_stride=source.stride,
            target_address=target.address(),
            target_stride=target.stride,
            record_address=record.address(),
            numerator=op.numerator,
            **sizes.values,
        )

    step.emit = emit


def norm(s: Emission, op: QNorm) -> None:
    """Appends the steps of a norm to the emission's."""
    channels = op.source.cols
    if channels > s.config.norm_length:
        raise CapacityError(
            f"{op.name!r}: a norm of {channels} channels does not fit config "
            f"{s.config.name!r} ({s.config.norm_length}): raise norm_length"
        )
    outputs: list[tuple[int, Gain]] = [
        (width, gain) for width, gain in ((8, op.int8), (16, op.int16)) if gain is not None
    ]
    groups = _groups(s, op)
    wanted = _wanted(s, op, groups)
    loads: list[Load] = []
    for width, gain in outputs:
        data = pack_gain_records(gain.gains, gain.biases).ravel()
        name, output16 = f"gain{width}", int(width == 16)
        loads += s.table_load(
            name, data, Opcode.NORM_GAIN, len(gain.gains), wanted=wanted, output16=output16
        )
    for row, rows in groups:
        _norm_step(s, op, outputs, row, rows, loads)
        loads = []


def _norm_step(
    s: Emission,
    op: QNorm,
    outputs: list[tuple[int, Gain]],
    row: int,
    rows: int,
    loads: list[Load],
) -> None:
    step = s.new_step()
    step.loads += loads
    source = s.read_rows(step, s.rows_of(op.source, row, rows))
    targets = {
        width: s.write_rows(
            step, s.rows_of(gain.target, row, rows), over=source if width == 16 else None
        )
        for width, gain in outputs
    }
    values = s.sizes().rows("rows", rows, outputs[0][1].target, row).values
    values |= {"channels": op.source.cols, "epsilon": op.epsilon}
    for width, gain in outputs:
        values[f"write{width}"] = 1
        values[f"shift{width}"] = NORM_SHIFTS.index(gain.shift)

    def emit() -> None:
        for width, target in targets.items():
            values[f"target{width}_address"] = target.address()
            values[f"target{width}_stride"] = target.stride
        s.put(
            Opcode.NORM,
            source_address=source.address(),
            source_stride=source.stride,
            **values,
        )

    step.emit = emit


def copy(s: Emission, op: QCopy) -> None:
    """Appends the steps of a copy to the emission's: none without external memory, where the rows
    are constants."""
    if s.config.dram == "none":
        return
    tensor = s.tensor(op.source)
    layout = Layout.of(tensor, s.word)
    source = s.constants.add(layout.pack(codes_of(tensor)))
    for row, rows in row_groups(s.residency, op.target, [], op.target.rows):
        view = s.rows_of(op.target, row, rows)
        dram = source + (op.source.row + row) * layout.row_words * s.word
        step = s.new_step()
        if s.is_resident(view):
            local = s.local_rows(view)
            s.write(view)
            words = rows * layout.row_words
            step.emit = _copy_in(s, dram, local.address, words)
            continue
        for one in range(rows):
            # A row at a time: there may be room for no more.
            if one:
                step = s.new_step()
            words = layout.row_words
            target = s.write_rows(step, s.rows_of(view, one, 1), 0, words)
            step.emit = _copy_in(s, dram + one * words * s.word, target.address, words)


def _copy_in(s: Emission, dram: int, address: Callable[[], int], words: int) -> Callable[[], None]:
    def emit() -> None:
        s.copy_in(dram, address(), words)

    return emit
