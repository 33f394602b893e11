"""Faults in the calls a server makes to its disk, by a preloaded library (``shim.c``) that is steered while it runs."""

from __future__ import annotations

import enum
import errno
import functools
import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_LAYOUT = struct.Struct("8i")
_FOR_EVER = 1 << 30


class Mode(enum.IntEnum):
    """What happens to a call. ``HALF``: a write is done in part first; ``AFTER``: the call is done first."""

    OFF = 0
    KILL_BEFORE = 1
    KILL_HALF = 2
    KILL_AFTER = 3
    FAIL = 4
    FAIL_HALF = 5
    FAIL_AFTER = 6
    SHORT = 7


class Calls(enum.IntFlag):
    """To which calls."""

    WRITE = 1
    SYNC = 2
    TRUNCATE = 4
    UNLINK = 8
    CREATE = 16
    ALL = 31


class Files(enum.IntFlag):
    """On which files. The log is SQLite's write-ahead log."""

    DATABASE = 1
    LOG = 2
    BYTES = 4
    ALL = 7


@dataclass(frozen=True)
class Fault:
    """After ``skip`` such calls, ``times`` of them are struck."""

    mode: Mode
    calls: Calls = Calls.ALL
    files: Files = Files.ALL
    skip: int = 0
    times: int = _FOR_EVER
    error: int = errno.EIO


@functools.cache
def library() -> Path:
    """Compile the library once a process; needs a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    built = Path(tempfile.mkdtemp(prefix="shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


class FaultyDisk:
    """The faults of one server. Pass ``environment`` to it; what is set takes effect at once."""

    def __init__(self, folder: Path, data_dir: Path, fault: Fault | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "control"
        self._path.write_bytes(bytes(_LAYOUT.size))
        self._struck_before = 0
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library()),
            "FAULT_CONTROL": str(self._path),
            "FAULT_UNDER": str(data_dir.resolve()),
        }
        if fault is not None:
            self.set(fault)

    def set(self, fault: Fault) -> None:
        """Have this happen from now on."""
        self.clear()
        self._struck_before += self.struck
        rest = (fault.calls, fault.files, fault.skip, fault.times, fault.error, 0, 0)
        _LAYOUT.pack_into(self._memory, 0, Mode.OFF, *rest)
        self._memory[:4] = struct.pack("i", fault.mode)

    def clear(self) -> None:
        """Have the disk work again."""
        self._memory[:4] = struct.pack("i", Mode.OFF)

    @property
    def seen(self) -> int:
        """Calls of the kind that came by since the fault was set."""
        return int(_LAYOUT.unpack(self._memory)[6])

    @property
    def struck(self) -> int:
        """How many of them were struck."""
        return int(_LAYOUT.unpack(self._memory)[7])

    @property
    def struck_in_all(self) -> int:
        """The same of all the faults that were set."""
        return self._struck_before + self.struck

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
