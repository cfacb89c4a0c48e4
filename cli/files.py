"""Writing answers: checked before the work, whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from gateformer.spec.errors import GateformerError


def require_writable(path: Path) -> None:
    """Raises GateformerError when `path` cannot be written; leaves nothing behind."""
    try:
        if path.is_dir():
            raise GateformerError(f"cannot write {path}: it is a folder")
        if not _is_special(path):
            probe = _temporary(path)
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise GateformerError(f"cannot write {path}: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Makes a folder to write into, if there is none. Raises GateformerError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GateformerError(f"cannot make the folder {path}: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a file that appears complete or not at all. Raises GateformerError."""
    write_bytes(path, lambda file: file.write(text.encode()))


def write_bytes(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file with `write(file)`; it appears complete or not at all, but for devices and
    pipes, which are written as they are. Raises GateformerError."""
    try:
        if _is_special(path):
            with path.open("wb") as file:
                write(file)
            return
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                write(file)
            os.replace(temporary, path.resolve())
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise GateformerError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON, keys in the record's order."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def _temporary(path: Path) -> Path:
    target = path.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}")


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, such as /dev/stdout, which must not be replaced."""
    return path.resolve().parent == Path("/dev") or (path.exists() and not path.is_file())
