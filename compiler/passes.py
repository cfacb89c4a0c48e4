"""The compiler's passes by name, and each one's result as text."""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from gateformer.compiler.disassemble import disassemble_instructions
from gateformer.compiler.graph import Copy, Gemm, Graph, Norm, Softmax, View
from gateformer.compiler.importer import ImportedModel
from gateformer.compiler.plan import Plan
from gateformer.compiler.quantized import QCopy, QGemm, QNorm, QSoftmax, QuantizedGraph
from gateformer.compiler.schedule import Schedule
from gateformer.spec.image import ProgramImage


@singledispatch
def describe(result: Any) -> Iterator[str]:
    """Lines that show what a pass made."""
    raise TypeError(f"no pass makes a {type(result).__name__}")


@describe.register
def _(model: ImportedModel) -> Iterator[str]:
    for node in model.nodes:
        shapes = (list(model.values[name].shape) for name in node.outputs)
        yield f"{node.operator:<20} {node.name} -> {', '.join(map(str, shapes))}"


@describe.register
def _(graph: Graph) -> Iterator[str]:
    for op in graph.operations:
        match op:
            case Gemm():
                extras = [op.activation or "", "residual" if op.residual else ""]
                parts = f"{_view(op.a)} x {_view(op.b)} -> {_view(op.out)}"
                yield f"gemm     {parts} {' '.join(extras)}".rstrip()
            case Softmax():
                yield f"softmax  {_view(op.source)} -> {_view(op.target)}"
            case Norm():
                yield f"norm     {_view(op.source)} -> {_view(op.target)}"
            case Copy():
                yield f"copy     {_view(op.source)} -> {_view(op.target)}"
    for operation in graph.host.operations:
        yield f"host     {operation.node} ({operation.operator}): {operation.reason}"


@describe.register
def _(graph: QuantizedGraph) -> Iterator[str]:
    kinds = {tensor.name: tensor.kind for tensor in graph.tensors.values()}
    for op in graph.operations:
        match op:
            case QGemm():
                extras = ["activation" if op.activation is not None else ""]
                extras.append("residual" if op.residual else "")
                parts = f"{_view(op.a)} x {_view(op.b)} -> {_view(op.out)}"
                yield f"gemm     {parts} {kinds[op.out.tensor]} {' '.join(extras)}".rstrip()
            case QSoftmax():
                yield f"softmax  {_view(op.source)} -> {_view(op.target)}, {op.records}"
            case QNorm():
                targets = (f"{_view(g.target)} {kinds[g.target.tensor]}" for g in op.gains)
                yield f"norm     {_view(op.source)} -> {', '.join(targets)}"
            case QCopy():
                yield f"copy     {_view(op.source)} -> {_view(op.target)}"


@describe.register
def _(plan: Plan) -> Iterator[str]:
    for name, place in sorted(plan.local.items(), key=lambda item: item[1].address):
        end = place.address + place.layout.words_of_rows(place.rows)
        some = "" if place.rows == place.layout.rows else f", {place.rows} of its rows"
        yield f"local words {place.address:6} to {end:6}  {name}{some}"
    yield f"local words {plan.staging.start:6} to {plan.staging.stop:6}  staging"
    for name, address in plan.dram.items():
        yield f"dram byte   {address:6}            {name}"


@describe.register
def _(scheduled: Schedule) -> Iterator[str]:
    return disassemble_instructions(scheduled.instructions)


@describe.register
def _(program: list) -> Iterator[str]:
    return disassemble_instructions(program)


@describe.register
def _(image: ProgramImage) -> Iterator[str]:
    return disassemble_instructions(image.instructions)


def _view(view: View) -> str:
    rows, cols = view.row + view.rows, view.col + view.cols
    return f"{view.tensor}[{view.row}:{rows}, {view.col}:{cols}]"
