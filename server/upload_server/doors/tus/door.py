"""Decides what each tus request does: POST announces, PATCH appends, HEAD tells the offset, DELETE cancels.

Must not know how bytes are kept. The third door over the one ingest and the same use cases.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Final, Never
from urllib.parse import quote, unquote

import structlog

from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import (
    FileNotWritable,
    InvalidField,
    NotIdentified,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    ShuttingDown,
    SizeExceeded,
    UploadCancelled,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.fields import MAX_ID_CHARACTERS, MAX_PUT_BYTES, Rules
from upload_server.domain.states import File, FileSpec, FileStatus, Source
from upload_server.doors.admission import Admission, Gate
from upload_server.doors.calls import Call, Calls
from upload_server.doors.http.asgi import Headers, Receive, Scope, Send, is_gone
from upload_server.doors.http.pump import LEND, Lend
from upload_server.doors.mailbox import End, Mailbox
from upload_server.doors.tus import answers
from upload_server.doors.tus.answers import NO_CONTENT, Answer, Refused
from upload_server.doors.tus.protocol import Request, capabilities, encode_metadata
from upload_server.doors.tus.senders import Senders
from upload_server.doors.tus.transfer import Complete, SenderGone, reader, transfer
from upload_server.ingest import Ingest
from upload_server.service import Uploads
from upload_server.store.values import Trail

_log = structlog.get_logger("upload_server.doors.tus")

PATH: Final = "/api/v1/tus"
# Seconds that the server reads on behind an error, so that a browser that sends first and listens then can hear it.
LINGER_SECONDS: Final = 2.0
# A body that takes longer to come is a stream.
_WHOLE_SECONDS: Final = 1.0
# Seconds that HEAD waits for the last bytes of a connection that has just broken.
_CLOSING_SECONDS: Final = 5.0
_UNHEARD_CREATION: Final = "the connection broke before the sender had learnt where to send the file"
# What each request is as a call. OPTIONS is none.
_METHODS: Final = {"POST": "InitiateUpload", "PATCH": "UploadFile", "HEAD": "GetFile", "DELETE": "CancelFile"}


class Exchange:
    """One request, and the way back to its client."""

    def __init__(
        self,
        request: Request,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: Mailbox[Never],
        senders: Senders,
        admission: Admission,
    ) -> None:
        self.request = request
        self.file_id = _file_id(scope)
        self.body = body
        self.lend: Lend | None = scope.get(LEND)
        # The call that the request is; none for OPTIONS.
        self.call: Call | None = None
        # The file that this request has announced, until its client was answered; and where its bytes can be sent
        # again: errors carry that as well.
        self.created: File | None = None
        self.place: Headers = []
        # Whether the client was still there when its answer was complete, as far as a server can tell.
        self.heard = True
        self._receive = receive
        self._send = send
        self._senders = senders
        self._admission = admission

    async def answer(self, answer: Answer, body_bytes: int = 0) -> None:
        """Send an answer; to a client that may still be sending it goes before the rest is read and forgotten.

        Of the rest ``body_bytes`` are read at most, unless its length is declared.
        """
        headers = answer.all_headers()
        unread = self.request.has_body and not self.body.exhausted
        most = await self._readable(answer, body_bytes) if unread else 0
        if unread and not most:
            headers.append((b"connection", b"close"))
        elif not unread and (self.created is not None or answer.stops):
            self.heard = not await self.is_gone()
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": unread})
        if unread:
            # Its address has gone out on a line that stood: the file stays, whatever becomes of the rest.
            self.created = None
            await self._read_out(most)
            self.heard = isinstance(self.body.end, Complete)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _readable(self, answer: Answer, body_bytes: int) -> int:
        """Return how many bytes are read on for a client that has to hear that it must stop; 0 for any other.

        Firefox and WebKit hear nothing before their body is out, and who has heard nothing begins anew. The connection
        is kept, so that nobody hangs up on the rest. Such a request counts as an open upload all the while.
        """
        if answer.stops and self.request.carries_bytes and self.call is not None:
            with contextlib.suppress(ShuttingDown, Overloaded, QuotaExceeded, NotIdentified, PermissionDenied):
                await self.call.admit(Gate.UPLOAD)
                return self.request.body_bytes or body_bytes
        return 0

    async def _read_out(self, most: int) -> None:
        if not most:
            await self.body.discard(LINGER_SECONDS)
            return
        async with self._admission.until_closed():
            await self.body.discard_all(most)

    async def is_gone(self) -> bool:
        """Whether the client has left, as far as it shows; asked once all of its body is read."""
        return not isinstance(self.body.end, Complete | None) or await is_gone(self._receive)

    async def refuse(self, answer: Answer, body_bytes: int = 0) -> None:
        """Send the answer of a request that failed."""
        answer = Answer(answer.status, [*answer.headers, *self.place], answer.body, answer.outcome)
        await self.answer(answer, body_bytes)

    async def tell(self, error: UploadError) -> None:
        """Send an error that every door knows."""
        fight = isinstance(error, WriterReplaced) and self._senders.note_replaced(self.file_id)
        answer = answers.refused(error, of_head=self.request.method == "HEAD", fight=fight)
        cancelled = answers.cancelled_file(error)
        await self.refuse(answer, cancelled.size_bytes if cancelled else 0)
        if cancelled and self.request.carries_bytes:
            asked = not isinstance(error, UploadCancelled)
            self._senders.note_told(cancelled.file_id, in_full=self.heard, asked=asked)


Handler = Callable[[Exchange, Call], Awaitable[Answer]]


class TusDoor:
    """Serves ``/api/v1/tus`` and the uploads under it."""

    def __init__(
        self,
        uploads: Uploads,
        ingest: Ingest,
        calls: Calls,
        *,
        clock: Callable[[], datetime],
        idle_seconds: float,
        least_bytes: int = 0,
        upload_ttl: float,
        max_file_bytes: int,
    ) -> None:
        """``upload_ttl`` is how many seconds after its last byte an upload expires."""
        self._uploads = uploads
        self._ingest = ingest
        self._calls = calls
        self._clock = clock
        self._idle = idle_seconds
        self._least_bytes = least_bytes
        self._ttl = timedelta(seconds=upload_ttl)
        self._max_file_bytes = max_file_bytes
        self._senders = Senders()
        # Files whose last bytes of a request are being made durable.
        self._closing: set[str] = set()
        self._of_all: Mapping[str, Handler] = {"POST": self._create}
        self._of_one: Mapping[str, Handler] = {"PATCH": self._append, "HEAD": self._tell, "DELETE": self._cancel}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request.of(scope)
        mailbox: Mailbox[Never] = Mailbox(
            reader(receive), self._ingest.memory, idle_seconds=self._idle, least_bytes=self._least_bytes
        )
        async with mailbox as body:
            exchange = Exchange(request, scope, receive, send, body, self._senders, self._calls.admission)
            if request.method == "OPTIONS":
                await exchange.answer(Answer(NO_CONTENT, capabilities(self._max_file_bytes)))
            elif request.method not in _METHODS:
                await exchange.answer(self._method_not_allowed(exchange).answer)
            else:
                async with Call(self._calls, _METHODS[request.method], exchange.tell, scope) as call:
                    exchange.call = call
                    await self._serve(exchange, call)
                if exchange.created is not None and not exchange.heard:
                    await self._give_up(exchange.created, await call.identify())

    async def _serve(self, exchange: Exchange, call: Call) -> None:
        try:
            await exchange.answer(await self._answer(exchange, call))
        except Refused as refusal:
            call.code = refusal.answer.outcome
            await exchange.refuse(refusal.answer)
        except SenderGone:
            call.code = "CANCELLED"
            exchange.heard = False
            _log.debug("tus.sender_gone", file_id=exchange.file_id)

    async def _answer(self, exchange: Exchange, call: Call) -> Answer:
        handler = self._handlers(exchange).get(exchange.request.method)
        if handler is None:
            raise self._method_not_allowed(exchange)
        if not exchange.request.version_fits:
            raise answers.version_not_spoken()
        await call.identify()
        return await handler(exchange, call)

    def _handlers(self, exchange: Exchange) -> Mapping[str, Handler]:
        return self._of_one if exchange.file_id else self._of_all

    def _method_not_allowed(self, exchange: Exchange) -> Refused:
        return answers.method_not_allowed(exchange.request.method, ", ".join([*self._handlers(exchange), "OPTIONS"]))

    # What the methods do -------------------------------------------------------------------------------------------

    async def _create(self, exchange: Exchange, call: Call) -> Answer:
        """Announce a file; bytes that come with it are its first, and one without bytes is completed at once."""
        request = exchange.request
        spec = request.spec()
        if spec.size_bytes > self._max_file_bytes:
            raise answers.too_long(spec.size_bytes, self._max_file_bytes)
        request.checksum()  # refused before anything is announced
        if (completed := await self._put(exchange, call, spec)) is not None:
            call.about = {"file_id": completed.file_id}
            return Answer(201, [_location(completed), (b"upload-offset", b"%d" % completed.size_bytes)])
        # Its turn first: while a call waits for one, it keeps no place of others.
        async with call.turn(await call.identify()):
            caller = await call.admit(Gate.CHANGE)
            with self._calls.limit():
                exchange.created = file = await self._uploads.initiate_upload(spec, "", caller)
        call.about = {"file_id": file.file_id}
        location = _location(file)
        if not (file.size_bytes == 0 or (request.carries_bytes and request.has_body)):
            return Answer(201, [location, self._expires()])
        # Without any bytes to send again, some clients would take a place for success.
        exchange.place = [location] if file.size_bytes else []
        answer = await self._transfer(exchange, call, file.file_id, 0)
        return Answer(201, [location, *answer.headers])

    async def _put(self, exchange: Exchange, call: Call, spec: FileSpec) -> File | None:
        """Complete a small file whose bytes all come with its creation; None, and nothing has happened, if they do not.

        It is not announced before they are there: a connection that breaks meanwhile leaves nothing behind.
        """
        request, body, size = exchange.request, exchange.body, spec.size_bytes
        if size and not (request.carries_bytes and request.body_bytes == size <= MAX_PUT_BYTES):
            return None
        caller = await call.admit(Gate.UPLOAD)
        pieces, end = await body.take_whole(size, _WHOLE_SECONDS)
        try:
            if isinstance(end, End) and not isinstance(end, Complete):
                raise SenderGone
            data, checksum = b"".join(pieces), request.checksum()
            if checksum is not None:
                await checksum.update(data)
            if len(data) == size and end is not None and (checksum is None or checksum.matches):
                if await exchange.is_gone():
                    raise SenderGone
                async with call.turn(caller, waits_for_disk=True):
                    with contextlib.suppress(InvalidField), self._calls.limit():
                        return await self._uploads.put_file(spec, data, "", caller)
            # What is wrong with the bytes a stream tells, and waits for those that are slow.
            body.put_back(pieces)
            pieces = []
            return None
        finally:
            body.let_go(pieces)

    async def _append(self, exchange: Exchange, call: Call) -> Answer:
        request = exchange.request
        if not request.carries_bytes:
            raise answers.not_bytes()
        offset = request.number("Upload-Offset")
        try:
            return await self._transfer(exchange, call, exchange.file_id, offset)
        except FileNotWritable as error:
            found = error.found
            if not (isinstance(found, File) and found.status is FileStatus.COMPLETED):
                raise
            if offset != found.size_bytes or request.has_body:
                raise
            # The answer to the last bytes was lost, and the client makes sure.
            return self._appended(found.size_bytes, completed=True)

    async def _tell(self, exchange: Exchange, call: Call) -> Answer:
        caller = await call.admit(Gate.READ)
        file = await self._current(exchange.file_id, caller, is_foreign=exchange.request.is_foreign)
        if file.status.final and file.status is not FileStatus.COMPLETED and not await self._is_owed_news(file, caller):
            raise FileNotWritable(file)
        if file.bytes_received == file.size_bytes and file.status is not FileStatus.COMPLETED:
            raise answers.locked(file)
        headers = [(b"upload-offset", b"%d" % file.bytes_received), (b"upload-length", b"%d" % file.size_bytes)]
        with self._calls.limit():
            given = await self._uploads.get_tus_metadata(file.file_id, caller)
        if metadata := given.encode() or encode_metadata(file):
            headers.append((b"upload-metadata", metadata))
        return Answer(200, headers)

    async def _cancel(self, exchange: Exchange, call: Call) -> Answer:
        """DELETE is CancelFile. Of one URL it is always the same request: sent again, it is answered again."""
        async with call.turn(await call.identify(), cancels=True):
            caller = await call.admit(Gate.CANCEL)
            with self._calls.limit():
                await self._uploads.cancel_file(exchange.file_id, "", _request_id(exchange.file_id), caller)
        call.about = {"file_id": exchange.file_id}
        return Answer(NO_CONTENT)

    async def _is_owed_news(self, file: File, caller: Caller) -> bool:
        """Whether a file was cancelled under a sender that may not know yet: its next PATCH shall tell it.

        At any other answer than its offset a client would begin it anew, on its own.
        """
        heard = self._senders.has_heard(file.file_id)
        if heard or file.cancelled_at is None or self._clock() - file.cancelled_at > self._ttl:
            return False
        with self._calls.limit():
            wanted = Trail(file_id=file.file_id, to_status=FileStatus.CANCELLED)
            trail = await self._uploads.list_audit_events(wanted, "", 1, "", caller)
        cancel = next(iter(trail.rows), None)
        # The client that terminates its upload knows.
        if cancel is None or cancel.source == Source.TUS:
            return False
        return heard is False or cancel.from_status == FileStatus.UPLOADING

    async def _give_up(self, file: File, sender: Caller) -> None:
        """Cancel a file whose sender cannot know where to send it: the answer to its creation was lost."""
        caller = replace(sender, by_itself=True)
        try:
            await self._uploads.cancel_file(file.file_id, _UNHEARD_CREATION, "", caller)
        except UploadError as error:
            # It is final already; or it cannot be written now, and expires.
            _log.debug("tus.unheard_creation_stays", file_id=file.file_id, error=error.reason)

    # Bytes ---------------------------------------------------------------------------------------------------------

    async def _transfer(self, exchange: Exchange, call: Call, file_id: str, offset: int) -> Answer:
        request = exchange.request
        checksum = request.checksum()
        _check_id(file_id)
        call.about = {"file_id": file_id}
        caller = await call.admit(Gate.UPLOAD)
        async with call.turn(caller, waits_for_disk=True):
            upload = await self._ingest.open(file_id, offset, caller, may_overlap=True)
        try:
            completed = await transfer(upload, exchange.body, checksum, offset, request.body_bytes, exchange.lend)
        except SizeExceeded:
            upload.disown()
            raise
        finally:
            self._closing.add(file_id)
            try:
                await upload.close()
            finally:
                self._closing.discard(file_id)
        return self._appended(upload.durable, completed=completed is not None)

    def _appended(self, offset: int, *, completed: bool) -> Answer:
        headers = [(b"upload-offset", b"%d" % offset)]
        return Answer(NO_CONTENT, headers if completed else [*headers, self._expires()])

    async def _current(self, file_id: str, caller: Caller, *, is_foreign: bool) -> File:
        """The file with its offset as the next PATCH must have it."""
        if file_id in self._closing:
            await self._wait_closed(file_id, _CLOSING_SECONDS)
        file = await self._read(file_id, caller)
        if not _lacks_commit(file):
            return file
        # A PATCH brought every byte but the commit was lost, with the process or with the database: to the client an
        # offset at the end means that all is done, so it has to be.
        await self._wait_closed(file_id, self._idle)
        file = await self._read(file_id, caller)
        # Who may only look completes nothing.
        sends = Permission.WRITE in caller.may and caller.principal in ("", file.owner)
        if is_foreign or not sends or not _lacks_commit(file) or self._ingest.is_open(file_id):
            return file
        upload = await self._ingest.open(file_id, file.size_bytes, caller)
        try:
            return await upload.commit("", caller)
        finally:
            await upload.close()

    async def _read(self, file_id: str, caller: Caller) -> File:
        with self._calls.limit():
            return await self._uploads.get_file(file_id, caller)

    async def _wait_closed(self, file_id: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ingest.wait_closed(file_id)

    def _expires(self) -> tuple[bytes, bytes]:
        return b"upload-expires", format_datetime(self._clock() + self._ttl, usegmt=True).encode()


def _location(file: File) -> tuple[bytes, bytes]:
    return b"location", f"{PATH}/{file.file_id}".encode()


def _lacks_commit(file: File) -> bool:
    """Whether a PATCH brought every byte, and nobody has completed the file."""
    uploading, complete = file.status is FileStatus.UPLOADING, file.bytes_received == file.size_bytes
    return uploading and complete and file.writer == Source.TUS


def _file_id(scope: Scope) -> str:
    """What follows the door's path, or empty. From the raw path: an escaped slash is part of the id."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    # Some frameworks end every address with a slash.
    name = raw.removeprefix(PATH.encode()).removeprefix(b"/").removesuffix(b"/")
    return unquote(name.decode("latin-1"), errors="replace")


def _request_id(file_id: str) -> str:
    return f"tus:{quote(file_id, safe='')}"[:MAX_ID_CHARACTERS]


def _check_id(file_id: str) -> None:
    rules = Rules()
    rules.identifier("file_id", file_id)
    rules.check()
