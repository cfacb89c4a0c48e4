"""Prints a program as text, one instruction a line."""

from collections.abc import Iterable, Iterator

from gateformer.spec.isa import SYNC_ENGINES, WORDS, Instruction

_MASKS = ("wait", "signal", "epilogue_wait", "epilogue_signal")


def disassemble_instructions(instructions: Iterable[Instruction]) -> Iterator[str]:
    """One line for each instruction: byte address, opcode, the fields that are not 0.

    Masks are printed as the engines' names; a size cut to the runtime length as `size@offset`.
    """
    for index, instruction in enumerate(instructions):
        yield f"{4 * WORDS * index:06x}  {_text(instruction)}"


def _text(instruction: Instruction) -> str:
    parts = [f"{instruction.opcode.name:<16}"]
    for name, value in instruction.values.items():
        if name.endswith(("_offset", "_dynamic")):
            continue
        if instruction.values.get(f"{name}_dynamic"):
            parts.append(f"{name}={value}@{instruction[f'{name}_offset']}")
        elif value and name in _MASKS:
            parts.append(f"{name}={'+'.join(_engines(value))}")
        elif value:
            parts.append(f"{name}={value}")
    return " ".join(parts).rstrip()


def _engines(mask: int) -> list[str]:
    return [engine.name.lower() for engine in SYNC_ENGINES if mask >> engine & 1]
