"""Disks that fail: a small one that is really full, and libfiu's faults in any server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

_FIU = Path("/usr/lib/fiu")


def need(reason: str, *, met: bool) -> None:
    """Skip with a reason where something is missing; in CI it must not be."""
    if not met:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have it: {reason}")
        pytest.skip(reason)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, so large and no larger."""
    need("mounting needs root", met=os.geteuid() == 0)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    need("this machine lets nobody mount a tmpfs", met=mounted.returncode == 0)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no room on a file system; returns the file that has taken it."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return hog


class Fiu:
    """libfiu's faults in one server: random ones, switched on and off while it runs."""

    def __init__(self, folder: Path) -> None:
        need("libfiu (fiu-utils) is not installed", met=shutil.which("fiu-ctrl") is not None and _FIU.is_dir())
        folder.mkdir()
        self._prefix = str(folder / "ctrl")
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": f"{_FIU}/fiu_run_preload.so {_FIU}/fiu_posix_preload.so",
            "FIU_CTRL_FIFO": self._prefix,
        }

    def enable(self, pid: int, name: str, probability: float, error: int) -> None:
        """Have calls of this name fail at random."""
        self._send(pid, f"enable_random name={name},probability={probability},failinfo={error}")

    def disable(self, pid: int, name: str) -> None:
        """Have them work again."""
        self._send(pid, f"disable name={name}")

    def _send(self, pid: int, command: str) -> None:
        subprocess.run(["fiu-ctrl", "-f", self._prefix, "-c", command, str(pid)], check=True, timeout=20)
