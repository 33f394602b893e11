"""Decides which announcements find room in the database: so few that every open file can still come to its end.

Must not know what is announced. Used on the writer's thread; ``left`` may be asked from any.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from upload_server.domain.errors import DatabaseFailure, StorageFull
from upload_server.process.room import Room

_log = logging.getLogger(__name__)

# What the end of an open file takes at most for ever: two events with their seals, a longer row, a stored answer.
_END_BYTES: Final = 3072
# What one transaction that ends many files writes into the log, for each of them, and of how many it may consist.
_LOGGED_BYTES: Final = 2560
_MOST_IN_A_TRANSACTION: Final = 10_000
# Both hold with a reason of so many bytes. Of a longer one each byte is written up to eight times.
_REASON_BYTES: Final = 512
_REASON_COPIES: Final = 8
# Of a row: what it takes besides its texts, indexes and event included.
_ROW_BYTES: Final = 640
_WARN_SECONDS: Final = 60.0
_MIB: Final = 1024 * 1024


def _kept_for(open_files: int) -> int:
    return open_files * _END_BYTES + min(open_files, _MOST_IN_A_TRANSACTION) * _LOGGED_BYTES


class RowRoom:
    """The room for rows on the database's disk, and within ``max_bytes`` of the database (0: no bound)."""

    def __init__(self, path: Path, room: Room, max_bytes: int) -> None:
        self._path = path
        self._room = room
        self._max_bytes = max_bytes
        self._device = path.stat().st_dev
        room.keep(self._device, lambda: _kept_for(self.open_files))
        # The committer counts them: room is kept for the end of each.
        self.open_files = 0
        # Of the database, when it was last asked: some of that may lie in the log.
        self._size = 0
        self._warned_at = -_WARN_SECONDS

    def claim(self, files: int, text_bytes: int, size: Callable[[], int]) -> None:
        """Take the room of ``files`` new rows that hold so much text; raises ``StorageFull``.

        ``size`` tells the bytes of the database; asked only where they are bounded.
        """
        rows = files * _ROW_BYTES + text_bytes
        if self._max_bytes:
            self._size = size()
            if self._size + rows + (self.open_files + files) * _END_BYTES > self._max_bytes:
                self._refuse("max_database_bytes", self._max_bytes, self.open_files * _END_BYTES)
        # Once in the log, once in the file.
        needed = 2 * rows + _kept_for(self.open_files + files) - _kept_for(self.open_files)
        try:
            if not self._room.claim(self._path, self._device, needed):
                self._refuse("disk", None, self._room.kept(self._path))
        except OSError as error:
            _log.warning("the disk of the database does not tell its room: %s", error)
            raise DatabaseFailure from error

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where it would take room that is kept for the ends of others."""
        text = reason.encode()
        excess = len(text) - _REASON_BYTES
        try:
            if excess <= 0 or self.left() >= excess * files * _REASON_COPIES:
                return reason
        except OSError as error:
            _log.warning("the disk of the database does not tell its room: %s", error)
        return text[:_REASON_BYTES].decode(errors="ignore")

    def left(self) -> int:
        """Bytes that announcements may still take, with what is kept for the files they announce; raises OSError."""
        left = self._room.left(self._path)
        if self._max_bytes:
            size = max(self._size, self._path.stat().st_size)
            left = min(left, self._max_bytes - size - self.open_files * _END_BYTES)
        return max(0, left)

    def _refuse(self, limit: str, bound: int | None, kept: int) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            remedy = "raise --max-database-bytes" if limit != "disk" else f"make room on the disk of {self._path}"
            _log.warning(
                "announcements are refused: %d MiB are kept for cancels, expiry and completions of %d open files; %s",
                kept // _MIB,
                self.open_files,
                remedy,
            )
        raise StorageFull(limit, kept, bound)
