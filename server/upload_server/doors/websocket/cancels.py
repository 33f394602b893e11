"""Decides when a socket that went cancels its upload: at once when its page closed it, after a grace when it was lost.

Must not know sockets. Owns its tasks: a cancel goes on when the connection it stems from is long gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.errors import (
    DatabaseFailure,
    NotFound,
    NotInState,
    OutcomeUnknown,
    Overloaded,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import File, Source
from upload_server.service import Uploads

_log = structlog.get_logger("upload_server.doors.websocket")

# Seconds before each further try when the database does not take the change: nobody is left to ask again.
_RETRY_SECONDS: Final = (0.2, 1.0, 5.0)
# Due cancels that are read, and carried out together.
_PAGE: Final = 64
# Seconds after which the rows are read again: another node may have noted something, or the database has failed.
_LOOK_SECONDS: Final = 30.0
_AFTER_FAILURE_SECONDS: Final = 5.0


class CloseCancels:
    """The cancels that closed and lost sockets owe, each conditional on the fence its socket held.

    That of a lost socket is due at a time that stands in the file's row, until a new stream clears it. ``run`` carries
    out what is due, also what another server, or one before a restart, has noted.
    """

    def __init__(self, uploads: Uploads, *, clock: Callable[[], datetime]) -> None:
        self._uploads = uploads
        loop = asyncio.get_running_loop()
        # A step of the machine's clock must not end a grace early: the clock is read once, then time is counted.
        self._epoch = clock() - timedelta(seconds=loop.time())
        self._nudged = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def closed(self, file: File, reason: str) -> None:
        """Cancel now; returns when it is done or can no longer be. Goes on if the caller is cancelled."""
        await self._see_to(file.file_id, lambda: self._cancel(file.file_id, file.owner, file.fence, reason))

    async def lost(self, file: File, seconds: float, reason: str) -> None:
        """Cancel in so many seconds, unless a stream opens on the file before; not at all if the server stops now."""
        if self._stopped:
            return
        if seconds <= 0:
            await self.closed(file, reason)
            return
        due_at = self._now() + timedelta(seconds=seconds)

        async def note() -> bool:
            await self._uploads.cancel_later(file, due_at, reason)
            self._nudged.set()
            return True

        await self._see_to(file.file_id, note)

    async def run(self) -> None:
        """Carry out what is due, until cancelled."""
        while True:
            self._nudged.clear()
            try:
                seconds = await self._carry_out()
            except UploadError as error:
                _log.warning("websocket.due_not_read", error=error.reason)
                seconds = _AFTER_FAILURE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._nudged.wait()

    def drain(self) -> None:
        """Begin no cancel for a lost socket from now on: a server that stops cancels nothing by itself."""
        self._stopped = True

    async def finish(self) -> None:
        """Wait until what closed and lost sockets have begun is done."""
        while self._running:
            await asyncio.wait(self._running)

    def _now(self) -> datetime:
        return self._epoch + timedelta(seconds=asyncio.get_running_loop().time())

    async def _carry_out(self) -> float:
        """Cancel what is due; returns in how many seconds to look again."""
        due = await self._uploads.due_cancels(_PAGE)
        if self._stopped:
            return _LOOK_SECONDS
        now = self._now()
        over = [one for one in due if one.due_at <= now]
        settled = await asyncio.gather(*(self._cancel(one.file_id, one.owner, one.fence, one.reason) for one in over))
        if not all(settled):
            return _AFTER_FAILURE_SECONDS
        if len(over) == _PAGE:
            return 0.0
        seconds = (due[len(over)].due_at - now).total_seconds() if len(over) < len(due) else _LOOK_SECONDS
        return min(seconds, _LOOK_SECONDS)

    async def _see_to(self, file_id: str, change: Callable[[], Awaitable[bool]]) -> None:
        """Make a change, again while the database does not take it; goes on if the caller is cancelled."""

        async def persist() -> None:
            for pause in (*_RETRY_SECONDS, None):
                try:
                    if await change():
                        return
                except UploadError as error:
                    _log.warning("websocket.loss_not_noted", file_id=file_id, error=error.reason)
                if pause is None or self._stopped:
                    break
                await asyncio.sleep(pause)
            _log.error("websocket.close_not_cancelled", file_id=file_id)

        task = asyncio.create_task(persist())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.shield(task)

    async def _cancel(self, file_id: str, owner: str, fence: int, reason: str) -> bool:
        """Cancel; returns whether there is nothing more to be done."""
        caller = Caller(Source.WEBSOCKET_CLOSE, owner)
        try:
            await self._uploads.cancel_file(file_id, reason, "", caller, fence)
        except (NotInState, NotFound, WriterReplaced) as error:
            _log.debug("websocket.close_too_late", file_id=file_id, found=error.reason)
        except (DatabaseFailure, OutcomeUnknown, Overloaded):
            return False
        except Exception:  # noqa: BLE001 - nobody awaits this for the error: the log is where it ends
            _log.exception("websocket.close_not_cancelled", file_id=file_id)
        return True
