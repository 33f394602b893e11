"""Decides when a socket that went cancels its upload: at once when its page closed it, after a grace when it was lost.

Must not know sockets. Owns its tasks: a cancel goes on when the connection it stems from is long gone.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from upload_server.domain.errors import (
    DatabaseFailure,
    NotFound,
    NotInState,
    OutcomeUnknown,
    Overloaded,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import Caller, File, Source
from upload_server.service import Uploads

_log = structlog.get_logger("upload_server.doors.websocket")

_CALLER: Final = Caller(Source.WEBSOCKET_CLOSE)
LOST_REASON: Final = "the connection was lost"
# Seconds before each further try when the database does not take the cancel: nobody is left to ask again.
_RETRY_SECONDS: Final = (0.2, 1.0, 5.0)


class CloseCancels:
    """The cancels that closed and lost sockets owe, each conditional on the fence its socket held."""

    def __init__(self, uploads: Uploads, *, grace_seconds: float, max_waiting: int) -> None:
        """At most ``max_waiting`` lost sockets wait for their grace; beyond, their uploads are left to expire."""
        self._uploads = uploads
        self._grace = grace_seconds
        self._max_waiting = max_waiting
        # By file: one that came back and was lost again waits anew.
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def closed(self, file: File, reason: str) -> None:
        """Cancel now; returns when it is done or can no longer be. Goes on if the caller is cancelled."""
        await asyncio.shield(self._start(file, reason.replace("\x00", "")))

    def lost(self, file: File) -> None:
        """Cancel after the grace, unless the file was taken over in the meantime or the server stops."""
        self.resumed(file.file_id)
        if self._stopped:
            return
        if len(self._waiting) >= self._max_waiting:
            _log.warning("websocket.lost_too_many", file_id=file.file_id)
            return
        loop = asyncio.get_running_loop()
        self._waiting[file.file_id] = loop.call_later(self._grace, self._grace_over, file)

    def resumed(self, file_id: str) -> None:
        """Forget a lost socket: its page is back. The fence would refuse the cancel anyway."""
        timer = self._waiting.pop(file_id, None)
        if timer is not None:
            timer.cancel()

    def drain(self) -> None:
        """Forget what waits, now and from now on: a server that stops cancels nothing by itself."""
        self._stopped = True
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    async def finish(self) -> None:
        """Wait until the cancels that have begun are done."""
        while self._running:
            await asyncio.wait(self._running)

    def _grace_over(self, file: File) -> None:
        del self._waiting[file.file_id]
        self._start(file, LOST_REASON)

    def _start(self, file: File, reason: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._cancel(file, reason))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _cancel(self, file: File, reason: str) -> None:
        for pause in (*_RETRY_SECONDS, None):
            try:
                await self._uploads.cancel_file(file.file_id, reason, "", _CALLER, file.fence)
            except (NotInState, NotFound, WriterReplaced) as error:
                _log.debug("websocket.close_too_late", file_id=file.file_id, found=error.reason)
            except (DatabaseFailure, OutcomeUnknown, Overloaded) as error:
                if pause is not None and not self._stopped:
                    await asyncio.sleep(pause)
                    continue
                _log.error("websocket.close_not_cancelled", file_id=file.file_id, error=error.reason)
            except UploadError as error:
                _log.error("websocket.close_not_cancelled", file_id=file.file_id, error=error.reason)
            except Exception:  # noqa: BLE001 - nobody awaits this task: the log is where it ends
                _log.exception("websocket.close_not_cancelled", file_id=file.file_id)
            return
