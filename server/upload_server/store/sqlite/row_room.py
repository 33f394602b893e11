"""Decides which announcements find room on the disk of a database file.

Must not know what is announced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from upload_server.domain.errors import DatabaseFailure
from upload_server.process.room import Room
from upload_server.store.sql.row_room import END_BYTES, RowRoom

_log = logging.getLogger(__name__)

# What one transaction that ends many files writes into the log, for each of them, and of how many it may consist.
_LOGGED_BYTES: Final = 2560
_MOST_IN_A_TRANSACTION: Final = 10_000


def _kept_for(open_files: int) -> int:
    return open_files * END_BYTES + min(open_files, _MOST_IN_A_TRANSACTION) * _LOGGED_BYTES


class FileRoom(RowRoom):
    """The room for rows on the database's disk, and within ``max_bytes`` of the database (0: no bound)."""

    row_bytes = 640
    # In the log, and in the file.
    reason_copies = 8

    def __init__(self, path: Path, room: Room, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._path = path
        self._room = room
        self._device = path.stat().st_dev
        room.keep(self._device, lambda: _kept_for(self.open_files))

    @property
    def counts(self) -> bool:
        """Always: disks have an end."""
        return True

    def claim(self, files: int, text_bytes: int, size: Callable[[], int]) -> None:
        """Take it of the disk too."""
        super().claim(files, text_bytes, size)
        # Once in the log, once in the file.
        rows = 2 * (files * self.row_bytes + text_bytes)
        needed = rows + _kept_for(self.open_files + files) - _kept_for(self.open_files)
        try:
            if not self._room.claim(self._path, self._device, needed):
                raise self._full("disk", None, self._room.kept(self._path), f"make room on the disk of {self._path}")
        except OSError as error:
            _log.warning("the disk of the database does not tell its room: %s", error)
            raise DatabaseFailure from error

    def left(self) -> int:
        """What is left of both."""
        left = self._room.left(self._path)
        # Some of the database may lie in the log.
        self._size = max(self._size, self._path.stat().st_size) if self._max_bytes else 0
        return max(0, min(left, super().left()))
