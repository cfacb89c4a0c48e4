"""Generated Verilog is remembered by what it is made from."""

import hashlib
import time
from pathlib import Path

import pytest

from gateformer.sim import verilog_cache
from gateformer.sim.verilog_cache import verilog_digest
from gateformer.spec.config import AcceleratorConfig
from gateformer.spec.configs import SMALL, TINY
from gateformer.spec.dram import IDEAL, SDRAM, DramTiming


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was generated, by sources that are old enough."""
    later = time.time() + 2 * verilog_cache.SETTLED_SECONDS
    monkeypatch.setattr(verilog_cache, "IMPORTED", later)
    return []


def test_generates_once(tmp_path: Path, made: list[str]) -> None:
    def generate(config: AcceleratorConfig, timing: DramTiming) -> str:
        made.append(config.name)
        return f"module {config.name} {timing}"

    for config in (SMALL, TINY, SMALL, TINY.replace(samples=2), TINY):
        for timing in (SDRAM, IDEAL):
            digest = verilog_digest(config, timing, tmp_path, generate)
            assert digest == hashlib.sha256(generate(config, timing).encode()).digest()
            made.pop()
    assert made == ["small", "small", "tiny", "tiny", "tiny", "tiny"]
    for record in (tmp_path / "verilog").iterdir():
        record.write_text("no digest")
    verilog_digest(SMALL, SDRAM, tmp_path, generate)
    assert made[-1] == "small"
    assert len(made) == 7


def test_a_change_is_generated_anew(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(config: AcceleratorConfig, timing: DramTiming) -> str:
        made.append(config.name)
        return str(len(made))

    source = tmp_path / "unit.py"
    source.write_text("one")
    monkeypatch.setattr(verilog_cache, "_sources", lambda: iter([("unit.py", source)]))
    first = verilog_digest(SMALL, SDRAM, tmp_path, generate)
    assert verilog_digest(SMALL, SDRAM, tmp_path, generate) == first
    source.write_text("two")
    assert verilog_digest(SMALL, SDRAM, tmp_path, generate) != first
    assert len(made) == 2
    # Changed while it was imported: whatever is known may be of another text.
    monkeypatch.setattr(verilog_cache, "IMPORTED", time.time())
    verilog_digest(SMALL, SDRAM, tmp_path, generate)
    assert len(made) == 3
