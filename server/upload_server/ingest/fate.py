"""Decides how all who have to do with one stream learn what became of it: progress, a stop, a failure, its end.

Must not know what the stream does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from upload_server.domain.errors import StorageFailure, UploadError
from upload_server.ingest.signal import StopSignal

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Marks:
    """How far the bytes are, each counted from the start of the file; every one is at most the one before it."""

    received: int
    written: int
    synced: int
    durable: int


class Fate:
    """What ends one stream, and who waits to hear of it. Used on the event loop; threads may ask ``abandoned``."""

    def __init__(self, file_id: str, stop: StopSignal, marks: Marks) -> None:
        self._file_id = file_id
        self._stop = stop
        self._marks = marks
        self._failure: Exception | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        stop.on_set(self.changed)

    @property
    def abandoned(self) -> bool:
        """Whether the file is cancelled or another stream's: no further byte may reach the disk."""
        return self._stop.abandoned

    @property
    def dead(self) -> bool:
        """Whether what came and is not durable yet is given up."""
        return self._stop.abandoned or self._failure is not None

    @property
    def stopped(self) -> bool:
        """Whether the stop signal is set, for whatever cause."""
        return self._stop.cause is not None

    def check(self) -> None:
        """Raise the stop signal's cause, or the failure that ended the stream."""
        self._stop.check()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def fail(self, error: Exception) -> None:
        """End the stream; the first failure counts. The file stays as its row says."""
        if self._failure is not None:
            return
        if isinstance(error, OSError):
            log.error(
                "storage failed under an upload",
                file_id=self._file_id,
                errno=error.errno,
                error=repr(error),
                durable=self._marks.durable,
                written=self._marks.written,
            )
            self._failure = StorageFailure()
            self._failure.__cause__ = error
        else:
            if not isinstance(error, UploadError):
                log.error("an upload's stream broke", file_id=self._file_id, exc_info=error)
            self._failure = error
        self.changed()
        self.news()

    def on_news(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called at ``news``, and when the stop signal is set."""
        self._listeners.append(listener)
        self._stop.on_set(listener)

    def news(self) -> None:
        """Tell those outside: ``durable`` has grown, or the stream has failed or ended."""
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
