"""Prints docs/isa.md from the instruction formats."""

from gateformer.spec.isa import FORMATS, SEMAPHORE_MAX, SYNC_ENGINES, WORDS, InstructionFormat

_INTRODUCTION = f"""\
# Instruction set

Printed from `spec/isa.py` by `python -m gateformer.spec.isa_document`; do not edit.

An instruction is {WORDS} words of 32 bits, little-endian. Bits that no field names are 0. Local
addresses and strides count words of local memory; DRAM addresses and strides count bytes. `NAME`
with `NAME_offset` and `NAME_dynamic` is a size: when `NAME_dynamic` is 1, the sequencer replaces it
by min(`NAME`, max(length - `NAME_offset`, 0)), length being the runtime length of the
instruction's `sample` (register LENGTH); a sample beyond the config's is illegal. An instruction of
size 0 moves nothing; it still takes and gives its tokens, and a GEMM still releases its block.

## Semaphores

Bit i of `wait` and `signal` is engine i of the table. A wait takes one token from the semaphore
(that engine -> this engine), a signal adds one to (this engine -> that engine), which counts to
{SEMAPHORE_MAX}; a signal to a full one waits.
"""


def render() -> str:
    """The page in Markdown."""
    engines = ["| bit | engine |", "|---|---|"]
    engines += [f"| {engine.value} | {engine.name} |" for engine in SYNC_ENGINES]
    opcodes = ["| opcode | name | goes to |", "|---|---|---|"]
    opcodes += [
        f"| {form.opcode.value} | [{form.opcode.name}](#{form.opcode.name.lower()}) "
        f"| {_engines(form)} |"
        for form in FORMATS.values()
    ]
    parts = [_INTRODUCTION, *engines, "", "## Opcodes", "", *opcodes]
    for form in FORMATS.values():
        parts += ["", f"## {form.opcode.name}", "", form.doc, "", *_fields(form)]
    return "\n".join(parts) + "\n"


def _engines(form: InstructionFormat) -> str:
    return ", ".join(engine.name for engine in form.engines) or "the sequencer"


def _fields(form: InstructionFormat) -> list[str]:
    lines = ["| word | bits | field | meaning |", "|---|---|---|---|"]
    for field in sorted(form.fields, key=lambda field: (field.word, field.low)):
        high = field.low + field.width - 1
        bits = f"{field.low}" if field.width == 1 else f"{high}:{field.low}"
        lines.append(f"| {field.word} | {bits} | `{field.name}` | {field.doc} |")
    return lines


if __name__ == "__main__":
    print(render(), end="")
