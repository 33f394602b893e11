"""Decides which sockets are let in, and what is left to do when one has ended.

Must not know bytes or states. Raw ASGI: refusals are an accepted socket, a message and a close, since browsers cannot
read a refused handshake.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Final

import structlog

from upload_server.domain.errors import InternalError, Overloaded, ShuttingDown, UploadCancelled, UploadError
from upload_server.domain.fields import Rules
from upload_server.domain.observer import Observer
from upload_server.doors.http.asgi import Receive, Scope, Send
from upload_server.doors.websocket import messages
from upload_server.doors.websocket.cancels import CloseCancels, Uploads
from upload_server.doors.websocket.channel import Inbox, Outlet
from upload_server.doors.websocket.messages import Gone, Goodbye
from upload_server.doors.websocket.session import CALLER, Patience, Session, refused
from upload_server.ingest import Ingest, Upload

_log = structlog.get_logger("upload_server.doors.websocket")

RETRY_AFTER_SECONDS: Final = 5.0
# Lost sockets that wait for their page, for each socket that may be open.
_WAITING_PER_SOCKET: Final = 4


class WebSocketDoor:
    """Serves WebSockets that carry uploads. Call ``drain`` and ``stop`` before the HTTP server is stopped."""

    def __init__(
        self,
        uploads: Uploads,
        ingest: Ingest,
        *,
        grace_seconds: float,
        idle_seconds: float,
        max_sockets: int,
        observer: Observer,
        commit_seconds: float = 0.25,
    ) -> None:
        """``commit_seconds`` is how long after the last byte a commit, maybe with a digest, is waited for."""
        self._ingest = ingest
        self._uploads = uploads
        self._observer = observer
        self._max = max_sockets
        self._patience = Patience(idle_seconds, commit_seconds)
        self._cancels = CloseCancels(
            uploads, grace_seconds=grace_seconds, max_waiting=max_sockets * _WAITING_PER_SOCKET
        )
        self._open = 0
        self._uploading: set[Upload] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._draining = False

    def drain(self) -> None:
        """Refuse new sockets with ``SHUTTING_DOWN`` and 1012, forget lost ones; those that are open go on."""
        self._draining = True
        self._cancels.drain()

    async def stop(self, seconds: float = 10.0) -> None:
        """Close every socket with 1012 and wait for their ends, at most ``seconds``. Cancels no upload."""
        self.drain()
        for upload in self._uploading:
            upload.ending.stop(ShuttingDown())
        try:
            async with asyncio.timeout(seconds):
                await self._none_open.wait()
                await self._cancels.finish()
        except TimeoutError:
            _log.warning("websocket.slow_to_end", open=self._open)

    async def __call__(self, file_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        began = time.monotonic()
        await receive()  # websocket.connect
        outlet = Outlet(send)
        await outlet.accept()
        self._count_in()
        code = "CANCELLED"
        try:
            code = await self._serve(file_id, scope, receive, outlet)
        finally:
            self._count_out()
            self._observer.call_finished("UploadFile", CALLER.source.value, code, time.monotonic() - began)
            _log.debug("websocket.ended", file_id=file_id, code=code)

    def _count_in(self) -> None:
        self._open += 1
        self._none_open.clear()
        self._observer.websocket_opened()

    def _count_out(self) -> None:
        self._open -= 1
        if not self._open:
            self._none_open.set()
        self._observer.websocket_closed()

    async def _serve(self, file_id: str, scope: Scope, receive: Receive, outlet: Outlet) -> str:
        """Return the gRPC code's name that says how it went."""
        try:
            self._admit()
            opening = messages.parse_opening(scope["query_string"])
            rules = Rules()
            rules.identifier("file_id", file_id)
            rules.check()
            async with Inbox(receive) as inbox:
                upload = await self._ingest.open(file_id, opening.offset, CALLER)
                return await self._carry(upload, inbox, outlet, keep=opening.keep)
        except UploadCancelled as error:
            goodbye = messages.cancelled(
                error.file.cancelled_at, error.file.cancelled_by, error.file.cancel_reason, messages.CANCELLED
            )
        except UploadError as error:
            goodbye = refused(error)
        except Exception:  # noqa: BLE001 - the outermost net of a socket
            incident = uuid.uuid4().hex
            _log.exception("websocket.failed", incident=incident, file_id=file_id)
            goodbye = messages.refused(InternalError(incident))
        await outlet.leave(goodbye.message, goodbye.code)
        return goodbye.outcome

    def _admit(self) -> None:
        if self._draining:
            raise ShuttingDown
        if self._open > self._max:
            raise Overloaded("Too many WebSockets at once", RETRY_AFTER_SECONDS)

    async def _carry(self, upload: Upload, inbox: Inbox, outlet: Outlet, *, keep: bool) -> str:
        file = upload.file
        self._cancels.resumed(file.file_id)
        self._uploading.add(upload)
        if self._draining:
            upload.ending.stop(ShuttingDown())
        try:
            session = Session(upload, inbox, outlet, self._uploads, self._patience)
            end = await session.run()
            if isinstance(end, Gone):
                await self._page_left(upload, end, keep=keep)
                return "CANCELLED"
            await self._say_goodbye(session, upload, end, outlet)
            return end.outcome
        finally:
            self._uploading.discard(upload)
            await upload.close()

    async def _say_goodbye(self, session: Session, upload: Upload, end: Goodbye, outlet: Outlet) -> None:
        untold: list[dict[str, object]] = []
        if end.message["type"] == "error":
            # The page may resume at once: what it has sent is made durable before it is told from where.
            await upload.close()
            untold = session.untold()
        await outlet.leave(end.message, end.code, *untold)

    async def _page_left(self, upload: Upload, gone: Gone, *, keep: bool) -> None:
        """Cancel if that is what leaving means here. The server's own close never does."""
        file = upload.file
        if keep or gone.by_server:
            return
        if gone.cancels:
            await self._cancels.closed(file, gone.reason)
        elif upload.ending.cause is None:
            await upload.close()
            self._cancels.lost(file)
