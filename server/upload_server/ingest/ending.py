"""Decides why a stream ends, and who waits to hear of it.

Must not know what the stream does about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from upload_server.domain.errors import (
    FileNotWritable,
    Stopped,
    StorageFailure,
    StorageFull,
    UploadCancelled,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import File, FileStatus
from upload_server.sink.protocol import NoRoom, SinkError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Marks:
    """How far the bytes are, each counted from the start of the file; every one is at most the one before it.

    A hop's thread moves ``written``, and ``received`` while its sender waits in a draw; all else the event loop.
    """

    received: int
    written: int
    synced: int
    durable: int


def storage_error(error: SinkError) -> UploadError:
    """Return what a sender hears when the sink fails."""
    told = StorageFull("disk") if isinstance(error, NoRoom) else StorageFailure()
    told.__cause__ = error
    return told


class Ending:
    """Why one stream ends: somebody stops it (a cancel, a take-over, a drain), or it fails.

    A level, not an edge: the first stop and the first failure stay. A stop outranks a failure, so the sender of a
    cancelled file hears of the cancel although the disk failed before.
    Changed on the event loop; threads may read ``cause``, ``abandoned`` and ``dead``.
    """

    __slots__ = (
        "_failure",
        "_file_id",
        "_listeners",
        "_waiters",
        "abandoned",
        "cause",
        "dead",
        "marks",
        "refused",
        "stopped_at",
    )

    def __init__(self, file_id: str, marks: Marks) -> None:
        self._file_id = file_id
        # How far the stream was, for the log of its failure.
        self.marks = marks
        # Why somebody stopped the stream, and since when (time.monotonic(), 0 before).
        self.cause: Stopped | None = None
        self.stopped_at = 0.0
        # The file is cancelled, or another stream's: no further byte may reach the disk.
        self.abandoned = False
        # The stream is abandoned or has failed: bytes that are not durable yet are given up.
        self.dead = False
        # The row was refused to count the stream's bytes: what it does not count is the stream's own to delete.
        self.refused = False
        self._failure: Exception | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[], None]] = []

    def stop(self, cause: Stopped) -> None:
        """Stop the stream; later causes are ignored."""
        if self.cause is not None:
            return
        self.stopped_at = time.monotonic()
        self.abandoned = isinstance(cause, (UploadCancelled, WriterReplaced))
        self.dead = self.dead or self.abandoned
        self.cause = cause
        self.news()

    def fail(self, error: Exception) -> None:
        """Give the stream up; later failures are ignored. The file stays as its row says."""
        if self._failure is not None:
            return
        self._failure = self._named(error)
        self.dead = True
        self.news()

    def _named(self, error: Exception) -> Exception:
        """Log a failure that no caller may read; returns what the sender hears instead."""
        if isinstance(error, SinkError):
            log.error(
                "storage failed under an upload",
                file_id=self._file_id,
                reason=error.reason,
                error=repr(error),
                durable=self.marks.durable,
                written=self.marks.written,
            )
            return storage_error(error)
        if not isinstance(error, UploadError):
            log.error("an upload's stream broke", file_id=self._file_id, exc_info=error)
        return error

    def end_as(self, file: File) -> None:
        """End the stream for what its file's row says: it is no longer this stream's."""
        if file.status is FileStatus.CANCELLED:
            self.stop(UploadCancelled(file))
        elif file.status is FileStatus.FAILED:
            self.fail(FileNotWritable(file))
        else:
            self.stop(WriterReplaced(file.file_id))

    def check(self) -> None:
        """Raise what ended the stream, if something did: the cause of the stop, else ``StorageFailure``, ..."""
        ended_by = self.cause or self._failure
        if ended_by is not None:
            # One object is raised wherever the stream is used: its traceback would grow with every raise.
            raise ended_by.with_traceback(None)

    def on_news(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called on the event loop at every ``news``, and at once if the stream is stopped already.

        It must not block or raise. What ended the stream is then raised by ``check``.
        """
        self._listeners.append(listener)
        if self.cause is not None:
            listener()

    def news(self) -> None:
        """Tell everybody that ``durable`` has grown, or that the stream was stopped, has failed or ended."""
        self.changed()
        for listener in self._listeners:
            listener()

    def changed(self) -> None:
        """Wake all who wait for a change of anything."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        """Wait for the next change; the caller then looks again at what it waits for."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
