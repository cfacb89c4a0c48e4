"""Answers appear whole or not at all; what is no file is never replaced."""

import os
import stat
import threading

import pytest

from gateformer.cli.files import require_writable, write_bytes, write_text
from gateformer.spec.errors import GateformerError


def write_encoded(path, text):
    write_bytes(path, lambda file: file.write(text.encode()))


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("write", [write_text, write_encoded])
def test_a_pipe_is_written_and_stays(tmp_path, write, linked):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    seen = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    require_writable(path)
    write(path, "answer")
    reader.join()
    assert seen == ["answer"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "old"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(GateformerError, match="No space left"):
        write_bytes(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
