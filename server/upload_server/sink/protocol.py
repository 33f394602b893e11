"""Decides what the service can ask of the place where bytes lie: the Sink protocol, and how a sink fails.

Must not know whose bytes they are. Methods block: they run on threads, never on the event loop. They raise
``SinkError``, from which the ingest makes ``StorageFailure``, or ``StorageFull`` of ``NoRoom``.

A file's bytes are named by its id and by a fence: the number that its row had when the writing stream claimed it. A
sink that keeps streams apart by their fence needs no other guard against a writer that was replaced and wakes up late;
one that does not may rely on the ingest, which opens a file only after the older stream has let go of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol

# Bytes are never copied on their way in: a door may hand over a view of its message.
Chunk = bytes | memoryview


class SinkError(Exception):
    """The sink could not do what was asked; ``str()`` says why, for the log and for operators, never for a caller."""

    # A word for the log that tells failures apart.
    reason: ClassVar[str] = "failed"


class NoRoom(SinkError):
    """The sink is full; what is left is kept for others."""

    reason = "no_room"


class BytesMissing(SinkError):
    """Fewer bytes lie there than were durable."""

    reason = "bytes_missing"


class BytesThere(SinkError):
    """Bytes lie already where a whole file was to be put."""

    reason = "bytes_there"


class SinkFile(Protocol):
    """The bytes of one file, open for appending by one writer. ``append`` and ``sync`` may run at the same time."""

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end, or raise; a failed append may leave a partial one behind."""

    def sync(self) -> int:
        """Make what was appended survive power loss; returns how many bytes do, from the start of the file.

        Those are at least all whose ``append`` returned before this call. After a failure the file must be given up,
        never synced again: the kernel may have marked lost pages as clean.
        """

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""


class Sink(Protocol):
    """Bytes by file id and fence."""

    def open(self, file_id: str, fence: int, offset: int) -> SinkFile:
        """Open for appending at ``offset``: what lies beyond is cut off; ``BytesMissing`` when there is less.

        ``fence`` is that of the stream that will write.
        """

    def put(self, file_id: str, data: Chunk) -> None:
        """Store a whole file, so that it survives power loss, as a draft; after an error nothing of it is left.

        ``BytesThere`` when something lies there.
        A draft is marked until ``keep``: a crash may leave one whose row was never written.
        """

    def keep(self, file_ids: Sequence[str]) -> None:
        """Take the mark from drafts whose rows are committed; what is none stays as it is.

        Need not survive power loss: a start sees to drafts that have a row.
        """

    def drafts(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Return which of these files are drafts; one that cannot be looked at counts as none."""

    def read(self, file_id: str, end: int, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """Read the bytes from ``start`` to ``end``, for hashing; ``BytesMissing`` when there are fewer."""

    def delete_all(self, kept_fences: Mapping[str, int | None]) -> dict[str, int | SinkError]:
        """Delete the bytes of files but for those of the fence that each may keep (None: nothing); survives power loss.

        Many at once, at the price of few syncs. Returns for each id how many bytes were freed, or what went wrong.
        """

    def file_ids(self, unreadable: Callable[[SinkError], None] | None = None) -> Iterator[str]:
        """Ids of everything that lies here, in any state.

        ``unreadable`` is told of each part that cannot be read, and the others follow; without it that raises.
        """

    def size(self, file_id: str) -> int:
        """Bytes that lie here for this id, 0 if none."""

    def room(self) -> int:
        """Bytes that may still be appended here, to whichever file."""
