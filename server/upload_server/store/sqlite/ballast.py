"""Decides what is thrown overboard at a start on a disk that is full: files kept for that, beside the database.

Must not know what the room is for. SQLite removes its log at a clean stop, and needs two new files to open again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from upload_server.process.files import open_own
from upload_server.process.room import Room

# As files, so that inodes come free as well as bytes.
_FILES: Final = 8
# Of a small disk at most this part.
_SHARE: Final = 64
# With less free than this, and fewer inodes, an opening may fail.
_ENOUGH_BYTES: Final = 4 * 1024 * 1024
_ENOUGH_INODES: Final = 8


class Ballast:
    """Up to ``size`` bytes in files beside the database at ``path``; 0: none. Methods block."""

    def __init__(self, path: Path, size: int) -> None:
        self._folder = path.with_name(f"{path.name}.ballast")
        self._size = size

    def drop_if_full(self) -> None:
        """Give the room back to the disk, if it has hardly any."""
        with contextlib.suppress(OSError), self._opened() as folder:
            disk = os.fstatvfs(folder)
            few_inodes = disk.f_files and disk.f_favail < _ENOUGH_INODES
            scarce = few_inodes or disk.f_bavail * disk.f_frsize < _ENOUGH_BYTES
            if scarce and disk.f_blocks:
                for name in _names():
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)

    def take(self, room: Room) -> None:
        """Take the room, or what is missing of it, as long as there is more than is kept for cancels."""
        if not self._size:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with self._opened() as folder:
                disk = os.fstatvfs(folder)
                each = min(self._size, disk.f_blocks * disk.f_frsize // _SHARE) // _FILES
                for name in _names():
                    if each and room.left(folder) > each:
                        _fill(name, folder, each)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _names() -> list[str]:
    return [str(number) for number in range(_FILES)]


def _fill(name: str, folder: int, size: int) -> None:
    descriptor = open_own(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    try:
        if os.fstat(descriptor).st_size < size:
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
