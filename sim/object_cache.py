"""A compiler launcher that compiles each file of the Verilator runtime once.

    python object_cache.py CACHE_FOLDER COMPILER ARGUMENTS...

Verilator's makefiles put it in front of the compiler through `OBJCACHE`. The runtime is the same in
every simulation and takes most of the time of a small one. Everything else is compiled as asked.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def _identity(command: list[str], source: Path) -> str:
    """A name for the object: it changes with compiler, flags, source and Verilator version."""
    digest = hashlib.sha256("\0".join(command).encode())
    compiler = Path(shutil.which(command[0]) or command[0]).resolve()
    digest.update(f"{compiler} {compiler.stat().st_mtime_ns}".encode())
    digest.update(source.read_bytes())
    digest.update((source.parent / "verilated_config.h").read_bytes())
    return digest.hexdigest()[:16]


def main(cache: Path, command: list[str]) -> int:
    source = Path(command[-1])
    if source.parent != Path(os.environ["VERILATOR_ROOT"]) / "include" or "-o" not in command:
        return subprocess.call(command)
    place = command.index("-o") + 1
    target, command[place] = command[place], "-"
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / f"{source.stem}-{_identity(command, source)}.o"
    with open(entry.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not entry.exists():
            command[place] = str(entry.with_suffix(".partial.o"))
            code = subprocess.call(command)
            if code != 0:
                return code
            os.replace(command[place], entry)
    shutil.copyfile(entry, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
