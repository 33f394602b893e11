"""Decides what the service can ask of the place where bytes lie: the Sink protocol.

Must not know whose bytes they are. Methods block: they run on the ingest's threads, never on the event loop.
They raise OSError; the ingest turns that into ``StorageFailure``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

# Bytes are never copied on their way in: a door may hand over a view of its message.
Chunk = bytes | memoryview


class SinkFile(Protocol):
    """The bytes of one file, open for appending by one writer."""

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end, or raise; a failed append may leave a partial one behind."""

    def sync(self) -> None:
        """Make everything appended survive power loss.

        After a failure the file must be given up, never synced again: the kernel may have marked lost pages as clean.
        """

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""


class Sink(Protocol):
    """Bytes by file id."""

    def open(self, file_id: str, offset: int) -> SinkFile:
        """Open for appending at ``offset``: what lies beyond is cut off; raises OSError when there is less."""

    def read(self, file_id: str, end: int, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """Read the bytes from ``start`` to ``end``, for hashing a resumed prefix; OSError when there are fewer."""

    def delete(self, file_id: str) -> int:
        """Delete and make that survive power loss; returns how many bytes were freed, 0 if there was nothing."""

    def delete_all(self, file_ids: Sequence[str]) -> dict[str, int | OSError]:
        """Delete many at the price of few syncs; tells of each id what was freed or what went wrong."""

    def file_ids(self) -> Iterator[str]:
        """Ids of everything that lies here, in any state."""

    def size(self, file_id: str) -> int:
        """Bytes that lie here for this id, 0 if none."""

    def room(self) -> int:
        """Bytes that may still be appended here, to whichever file."""
