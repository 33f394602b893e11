"""Decides what the service can ask of the place where bytes lie: the Sink protocol, and how a sink fails.

Must not know whose bytes they are. Methods block: they run on threads, never on the event loop. They raise
``SinkError``, from which the ingest makes ``StorageFailure``, or ``StorageFull`` of ``NoRoom``.

A file's bytes lie in runs (``domain/runs.py``). A sink names what it stores by file id and the run's fence, so that a
writer that was replaced, here or on another node, can never mix bytes into the file, however late it wakes. Which runs
count, and up to where, the file's row says, and nothing that lies here: whatever else has a name is left over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import ClassVar, NamedTuple, Protocol

from upload_server.domain.runs import Run

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


class Stored(NamedTuple):
    """What lies in a sink for one file: the fences that its bytes are named by, in any order."""

    file_id: str
    fences: tuple[int, ...]


class Doomed(NamedTuple):
    """Bytes of a file that are to go: all that lies there under ``fences``, but for ``kept``.

    ``fences`` are all that the row knows of. ``kept`` is the fence of a completed file's own bytes, None when the file
    may keep nothing. A sink that can list one file's names may delete all that it finds there but for ``kept``.
    """

    file_id: str
    fences: tuple[int, ...]
    kept: int | None = None


class SinkFile(Protocol):
    """The newest run of one file, open for appending by one writer. ``append`` and ``sync`` may run at the same time.

    Offsets are counted from the start of the file, not of the run.
    """

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end, or raise; a failed append may leave a partial one behind.

        Their memory may be used again once this has returned: a sink that ``buffers`` keeps copies until ``sync``.
        """

    def sync(self, upto: int | None = None) -> int:
        """Make what was appended survive power loss; returns how many bytes do, from the start of the file.

        Those are at least all whose ``append`` returned before this call, or those in front of ``upto``. After a
        failure the file must be given up, never synced again: the kernel may have marked lost pages as clean.
        """

    def discard(self, end: int) -> None:
        """Delete, as far as can be, what this writer has stored behind ``end``: the row was refused to count it.

        Nothing is appended or synced any more. Of a run that ends where it began nothing is left.
        """

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""


class Sink(Protocol):
    """Bytes by file id and the fence of their run."""

    @property
    def buffers(self) -> bool:
        """Whether ``append`` keeps bytes in memory until ``sync``: they are charged until then."""

    @property
    def assembles(self) -> bool:
        """Whether ``finish`` has to work for a file of one run too, and leaves pieces behind that are to be deleted."""

    @property
    def continues(self) -> bool:
        """Whether a later stream may go on with the newest run, after the process that began it has closed it.

        ``open`` then cuts it to the offset. No other process ever writes to it.
        """

    @property
    def second_look(self) -> float:
        """Seconds after which a deletion is repeated before it counts: what was sent before it may still arrive."""

    def check_usable(self) -> None:
        """Try that bytes can be stored here, and are gone once they are deleted.

        Raises ``CannotStart``, in words for an operator that name the option and the cure.
        """

    def identity(self) -> str:
        """Return the id of the store whose bytes lie here; empty when nobody has said so."""

    def adopt(self, store_id: str) -> str:
        """Say whose bytes lie here, unless somebody has; returns what is said."""

    def uri(self, file_id: str, fence: int) -> str:
        """Return the address by which others find a whole file's bytes; empty where they have none."""

    def open(self, file_id: str, runs: Sequence[Run], size_bytes: int, offset: int) -> SinkFile:
        """Open the newest of ``runs`` for appending at ``offset``; ``BytesMissing`` when less lies there.

        The file is to have ``size_bytes``. What lies there under the newest run's fence beyond ``offset`` is cut off.
        """

    def put(self, file_id: str, data: Chunk) -> None:
        """Store a whole file under the fence ``WHOLE``, so that it survives power loss, as a draft.

        After an error nothing of it is left. ``BytesThere`` when something lies under that fence: one of two who put
        the same file. A draft is marked until ``keep``: a crash may leave one whose row was never written.
        """

    def keep(self, file_ids: Sequence[str]) -> None:
        """Take the mark from drafts whose rows are committed; what is none stays as it is.

        Need not survive power loss: a start sees to drafts that have a row.
        """

    def drafts(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Return for which of these files a draft lies here; one that cannot be looked at counts as none."""

    def read(
        self, file_id: str, runs: Sequence[Run], end: int, chunk_bytes: int, start: int = 0
    ) -> Generator[bytes, None, None]:
        """Read the file's bytes from ``start`` to ``end`` in blocks; ``BytesMissing`` when there are fewer.

        A block has about ``chunk_bytes``, which a network may round up to what it brings at once: some 400 KiB more.
        Of a completed file ``runs`` is one run from 0, whose fence its row names.
        """

    def descriptor(self, file_id: str, fence: int) -> int | None:
        """Open a completed file for reading, which stays readable when its name is deleted; the caller closes it.

        None where its bytes are not in one file of this machine.
        """

    def finish(
        self, file_id: str, runs: Sequence[Run], size_bytes: int, stopped: Callable[[], bool] | None = None
    ) -> None:
        """Make all bytes of the file lie under the newest run's fence, before its row says completed.

        Every byte up to ``size_bytes`` is synced. It survives power loss, may take long and may be repeated, also
        after a crash in between and by a writer that was replaced; ``runs`` can still be read afterwards. It gives up
        soon after ``stopped`` says so.
        """

    def delete_all(self, doomed: Sequence[Doomed]) -> dict[str, int | SinkError]:
        """Delete bytes of files so that they are gone after power loss.

        Many at once, at the price of few syncs. Returns for each id how many bytes were freed, or what went wrong.
        """

    def stored(
        self, unreadable: Callable[[SinkError], None] | None = None, *, unfinished: bool = False
    ) -> Iterator[Stored]:
        """Everything that lies here, in any state, each file once.

        ``unfinished``: a sink that can tell leaves out what is whole.

        ``unreadable`` is told of each part that cannot be read, and the others follow; without it that raises.
        """

    def size(self, file_id: str, runs: Sequence[Run]) -> int:
        """How many bytes of the file can be read from its start on, by its runs; the newest counts with all it has."""

    def size_under(self, file_id: str, fences: Sequence[int]) -> int:
        """Bytes that lie here under these fences of a file, needed or not."""

    def room(self) -> int:
        """Bytes that may still be appended here, to whichever file."""
