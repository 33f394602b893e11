"""Decides which announcements find room in the database: so few that every open file can still come to its end.

Must not know what is announced. Used on the writer's thread; ``left`` may be asked from any. How full the server's disk
is nobody tells a client, so of a server only what an operator bounds is bounded.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from upload_server.domain.errors import StorageFull

_log = logging.getLogger(__name__)

# What the end of an open file takes at most for ever: two events with their seals, a newer row, a stored answer.
END_BYTES: Final = 3072
# It holds with a reason of so many bytes; of a longer one each byte is written several times.
_REASON_BYTES: Final = 512
_WARN_SECONDS: Final = 60.0
_MIB: Final = 1024 * 1024


class RowRoom:
    """The room for rows within ``max_bytes`` of the store's tables; 0: no bound."""

    # Of a row: what it takes besides its texts, indexes and event included.
    row_bytes = 1024
    # How often each byte of a long reason is written at most.
    reason_copies = 4

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The committer counts them: room is kept for the end of each.
        self.open_files = 0
        # Of the tables, when they were last asked, and of what was announced since.
        self._size = 0
        self._warned_at = -_WARN_SECONDS

    @property
    def counts(self) -> bool:
        """Whether it has to know how many files are open."""
        return self._max_bytes > 0

    def claim(self, files: int, text_bytes: int, size: Callable[[], int]) -> None:
        """Take the room of ``files`` new rows that hold so much text; raises ``StorageFull``.

        ``size`` tells the bytes of the tables; asked only where they are bounded.
        """
        if not self._max_bytes:
            return
        self._size = size() + files * self.row_bytes + text_bytes
        if self._size + (self.open_files + files) * END_BYTES > self._max_bytes:
            raise self._full("max_database_bytes", self._max_bytes, self._kept(), "raise --max-database-bytes")

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where it would take room that is kept for the ends of others."""
        text = reason.encode()
        excess = len(text) - _REASON_BYTES
        try:
            if excess <= 0 or self.left() >= excess * files * self.reason_copies:
                return reason
        except OSError as error:
            _log.warning("the disk of the database does not tell its room: %s", error)
        return text[:_REASON_BYTES].decode(errors="ignore")

    def left(self) -> int:
        """Bytes that announcements may still take, with what is kept for the files they announce; raises OSError."""
        if not self._max_bytes:
            return sys.maxsize
        return max(0, self._max_bytes - self._size - self._kept())

    def _kept(self) -> int:
        return self.open_files * END_BYTES

    def _full(self, limit: str, bound: int | None, kept: int, remedy: str) -> StorageFull:
        """Return the refusal, and warn the operator now and then."""
        now = time.monotonic()
        if now - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            _log.warning(
                "announcements are refused: %d MiB are kept for cancels, expiry and completions of %d open files; %s",
                kept // _MIB,
                self.open_files,
                remedy,
            )
        return StorageFull(limit, kept, bound)
