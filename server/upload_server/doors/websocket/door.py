"""Decides which sockets are let in, and what is left to do when one has ended.

Must not know bytes or states. Raw ASGI: refusals are an accepted socket, a message and a close, since browsers cannot
read a refused handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import FileNotWritable, UploadCancelled, UploadError
from upload_server.domain.fields import Rules
from upload_server.domain.observer import Observer
from upload_server.doors.admission import Gate
from upload_server.doors.calls import Call, Calls
from upload_server.doors.convert import FileMessage, file_to_proto
from upload_server.doors.http.asgi import Receive, Scope, Send
from upload_server.doors.mailbox import Mailbox
from upload_server.doors.websocket import messages
from upload_server.doors.websocket.cancels import CloseCancels
from upload_server.doors.websocket.channel import Outlet, Reader
from upload_server.doors.websocket.leaving import Gone
from upload_server.doors.websocket.messages import Goodbye, Opening, Refused
from upload_server.doors.websocket.session import Session
from upload_server.doors.websocket.waiting import chosen_subprotocol, ended, first_message
from upload_server.ingest import Ingest, Upload
from upload_server.service import Uploads


class WebSocketDoor:
    """Serves WebSockets that carry uploads; ``run`` carries out what lost ones owe.

    Call ``drain``, later ``finish``, before the HTTP server is stopped.
    """

    def __init__(
        self,
        uploads: Uploads,
        ingest: Ingest,
        calls: Calls,
        *,
        clock: Callable[[], datetime],
        grace_seconds: float,
        max_grace_seconds: float,
        idle_seconds: float,
        least_bytes: int = 0,
        observer: Observer,
        commit_seconds: float = 0.25,
        file_message: FileMessage = file_to_proto,
    ) -> None:
        """``commit_seconds`` is how long after the last byte a commit, maybe with a digest, is waited for.

        A lost socket's upload waits ``grace_seconds`` for its page, which may ask for less, or for more up to
        ``max_grace_seconds``.
        """
        self._ingest = ingest
        self._uploads = uploads
        self._calls = calls
        self._observer = observer
        self._idle_seconds = idle_seconds
        self._least_bytes = least_bytes
        self._commit_seconds = commit_seconds
        self._file_message = file_message
        self._grace_seconds = grace_seconds
        self._max_grace_seconds = max(grace_seconds, max_grace_seconds)
        self._cancels = CloseCancels(uploads, clock=clock)

    async def run(self) -> None:
        """Cancel the uploads whose page was lost and did not come back in time, until cancelled."""
        await self._cancels.run()

    def drain(self) -> None:
        """Begin no cancel for a lost socket: a server that stops cancels nothing by itself."""
        self._cancels.drain()

    async def finish(self) -> None:
        """Wait until the cancels that have begun are done."""
        await self._cancels.finish()

    async def __call__(self, file_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        await receive()  # websocket.connect
        page = _Page(Outlet(send))
        await page.outlet.accept(chosen_subprotocol(scope.get("subprotocols", [])))
        self._observer.websocket_opened()
        try:
            async with Call(self._calls, "UploadFile", page.tell, (file_id, scope)) as call:
                await self._serve(file_id, scope, receive, page, call)
        finally:
            self._observer.websocket_closed()

    async def _serve(self, file_id: str, scope: Scope, receive: Receive, page: _Page, call: Call) -> None:
        caller = await call.admit(Gate.WEBSOCKET)
        opening = messages.parse_opening(
            scope["query_string"], grace=self._grace_seconds, max_grace=self._max_grace_seconds
        )
        rules = Rules()
        rules.identifier("file_id", file_id)
        rules.check()
        call.about = {"file_id": file_id}
        reader = Reader(receive)
        mailbox: Mailbox[str] = Mailbox(
            reader.read,
            self._ingest.memory,
            idle_seconds=self._idle_seconds,
            least_bytes=self._least_bytes,
            gated=False,
        )
        async with mailbox:
            await first_message(
                file_id,
                opening.offset,
                mailbox,
                page.outlet,
                self._uploads,
                caller=caller,
                expect=reader.expect,
                commit_seconds=self._commit_seconds,
            )
            if isinstance(mailbox.end, Gone):
                call.code = "CANCELLED"
                return
            # Only behind the last byte: there its silence was its commit.
            silent = mailbox.silent
            async with call.turn(caller, waits_for_disk=True):
                upload = await self._open(file_id, opening.offset, mailbox, caller)
            try:
                page.session = Session(
                    upload,
                    mailbox,
                    page.outlet,
                    self._uploads,
                    caller=caller,
                    silent=silent,
                    commit_seconds=self._commit_seconds,
                    file_message=self._file_message,
                )
                end = await page.session.run()
                if isinstance(end, Gone):
                    call.code = "CANCELLED"
                    await self._page_left(upload, end, opening, caller)
                else:
                    call.code = end.outcome
                    await page.outlet.leave(end.message, end.code)
            finally:
                # The page may resume at once: what it has sent is made durable before an error tells it from where.
                await upload.close()

    async def _open(self, file_id: str, offset: int, mailbox: Mailbox[str], caller: Caller) -> Upload:
        """Claim the file for what the page has begun to send."""
        if isinstance(mailbox.end, Refused):
            raise mailbox.end.error
        try:
            return await self._ingest.open(file_id, offset, caller)
        except FileNotWritable as error:
            # It could be written when the socket was opened.
            raise ended(error.file) from None

    async def _page_left(self, upload: Upload, gone: Gone, opening: Opening, caller: Caller) -> None:
        """Cancel if that is what leaving means here. The server's own close never does, nor who may not cancel."""
        file = upload.file
        if opening.keep or gone.by_server or Permission.CANCEL not in caller.may:
            return
        if gone.cancels:
            await self._cancels.closed(file, gone.reason(0))
        elif upload.ending.cause is None:
            await upload.close()
            await self._cancels.lost(file, opening.grace, gone.reason(opening.grace))


class _Page:
    """The page at the other end of a socket."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        # Once the upload is open.
        self.session: Session | None = None

    async def tell(self, error: UploadError) -> None:
        """Say with which error the socket ends, and from where the page can resume; then close."""
        before = self.session.untold() if self.session is not None else []
        goodbye = _goodbye(error)
        await self.outlet.leave(goodbye.message, goodbye.code, *before)


def _goodbye(error: UploadError) -> Goodbye:
    if isinstance(error, UploadCancelled):
        return messages.cancelled_by_other(error.file)
    return messages.refused(error)
