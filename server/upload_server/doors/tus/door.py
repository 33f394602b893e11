"""Decides what each tus request does: POST announces, PATCH appends, HEAD tells the offset, DELETE cancels.

Must not know how bytes are kept. The third door over the one ingest and the same use cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Final, Protocol, TypeVar
from urllib.parse import quote, unquote

import structlog

from upload_server.domain.errors import (
    DatabaseFailure,
    FileNotWritable,
    InternalError,
    OutcomeUnknown,
    Overloaded,
    UploadError,
)
from upload_server.domain.fields import MAX_ID_CHARACTERS, Rules
from upload_server.domain.observer import Observer
from upload_server.domain.states import Caller, CancelledFile, File, FileSpec, FileStatus
from upload_server.doors.http.asgi import Receive, Scope, Send
from upload_server.doors.refusals import log_refusal
from upload_server.doors.tus import answers
from upload_server.doors.tus.answers import NO_CONTENT, Answer, Refused
from upload_server.doors.tus.body import Body, SenderGone
from upload_server.doors.tus.protocol import Request, capabilities, encode_metadata
from upload_server.doors.tus.transfer import CALLER, Transfer
from upload_server.ingest import Ingest

_log = structlog.get_logger("upload_server.doors.tus")

PATH: Final = "/api/v1/tus"
# Seconds that the server reads on behind an error, so that a browser that sends first and listens then can hear it.
LINGER_SECONDS: Final = 2.0
# Seconds that HEAD waits for the last bytes of a connection that has just broken.
_CLOSING_SECONDS: Final = 5.0
# What a client is told to wait while a file's last bytes are being checked.
_CHECKING_SECONDS: Final = 5.0
_METHODS: Final = {"POST": "InitiateUpload", "PATCH": "UploadFile", "HEAD": "GetFile", "DELETE": "CancelFile"}

T = TypeVar("T")
Handler = Callable[[Request, str, Body], Awaitable[Answer]]
# Counts a call of a kind (`read`, `change`, `cancel`, `upload`) in and out; raises Overloaded or ShuttingDown.
Admit = Callable[[str], AbstractContextManager[None]]


class Uploads(Protocol):
    """What this door asks of the use cases."""

    async def initiate_upload(self, spec: FileSpec, request_id: str, caller: Caller) -> File:
        """Announce one file."""

    async def cancel_file(
        self, file_id: str, reason: str, request_id: str, caller: Caller, fence: int | None = None
    ) -> CancelledFile:
        """Cancel a file."""

    async def get_file(self, file_id: str, caller: Caller) -> File:
        """Read one file."""


class TusDoor:
    """Serves ``/api/v1/tus`` and the uploads under it."""

    def __init__(
        self,
        uploads: Uploads,
        ingest: Ingest,
        *,
        admit: Admit,
        clock: Callable[[], datetime],
        idle_seconds: float,
        call_seconds: float,
        upload_ttl: float,
        max_file_bytes: int,
        observer: Observer,
    ) -> None:
        """``upload_ttl`` is how many seconds after its last byte an upload expires."""
        self._uploads = uploads
        self._ingest = ingest
        self._admit = admit
        self._clock = clock
        self._idle = idle_seconds
        self._call_seconds = call_seconds
        self._ttl = timedelta(seconds=upload_ttl)
        self._max_file_bytes = max_file_bytes
        self._observer = observer
        # Files whose last bytes of a request are being made durable.
        self._closing: set[str] = set()
        self._of_all: Mapping[str, Handler] = {"POST": self._create, "OPTIONS": self._options}
        self._of_one: Mapping[str, Handler] = {
            "PATCH": self._append,
            "HEAD": self._tell,
            "DELETE": self._cancel,
            "OPTIONS": self._options,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.monotonic()
        request, file_id = Request.of(scope), _file_id(scope)
        outcome = "CANCELLED"
        async with Body(receive, expected=request.has_body) as body:
            try:
                answer = await self._answer(request, file_id, body)
                outcome = answer.outcome
                await _send(send, answer, body)
            except SenderGone:
                _log.debug("tus.sender_gone", file_id=file_id)
            finally:
                if request.method in _METHODS:
                    seconds = time.monotonic() - began
                    self._observer.call_finished(_METHODS[request.method], CALLER.source.value, outcome, seconds)

    async def _answer(self, request: Request, file_id: str, body: Body) -> Answer:
        try:
            handlers = self._of_one if file_id else self._of_all
            handler = handlers.get(request.method)
            if handler is None:
                raise answers.method_not_allowed(request.method, ", ".join(handlers))
            if request.method != "OPTIONS" and not request.version_fits:
                raise answers.version_not_spoken()
            return await handler(request, file_id, body)
        except Refused as refusal:
            return refusal.answer
        except UploadError as error:
            return _refused(request, error)
        except SenderGone:
            raise
        except Exception:  # noqa: BLE001 - the outermost net of a request
            incident = uuid.uuid4().hex
            _log.exception("tus.failed", incident=incident, method=request.method, file_id=file_id)
            return answers.refused(InternalError(incident))

    # What the methods do -------------------------------------------------------------------------------------------

    async def _options(self, _request: Request, _file_id: str, _body: Body) -> Answer:
        return Answer(NO_CONTENT, capabilities(self._max_file_bytes))

    async def _create(self, request: Request, _: str, body: Body) -> Answer:
        """Announce a file; bytes that come with it are its first, and one without bytes is completed at once."""
        spec = request.spec()
        if spec.size_bytes > self._max_file_bytes:
            raise answers.too_long(spec.size_bytes, self._max_file_bytes)
        request.checksum()  # refused before anything is announced
        with self._admit("change"):
            file = await self._in_time(self._uploads.initiate_upload(spec, "", CALLER), OutcomeUnknown)
        headers = [(b"location", f"{PATH}/{file.file_id}".encode()), self._expires()]
        if not (file.size_bytes == 0 or (request.carries_bytes and request.has_body)):
            return Answer(201, headers)
        try:
            answer = await self._transfer(request, file.file_id, 0, body)
        except UploadError as error:
            answer = _refused(request, error)
        except Refused as refusal:
            answer = refusal.answer
        if answer.status != NO_CONTENT:
            # Bytes can be sent again to the file that is there. Without any, some clients take a place for success.
            place = headers[:1] if file.size_bytes else []
            return Answer(answer.status, [*answer.headers, *place], answer.body, answer.outcome)
        return Answer(201, [headers[0], *answer.headers])

    async def _append(self, request: Request, file_id: str, body: Body) -> Answer:
        if not request.carries_bytes:
            raise answers.not_bytes()
        offset = request.number("Upload-Offset")
        try:
            return await self._transfer(request, file_id, offset, body)
        except FileNotWritable as error:
            found = error.found
            if not (isinstance(found, File) and found.status is FileStatus.COMPLETED):
                raise
            if offset != found.size_bytes or request.has_body:
                raise
            # The answer to the last bytes was lost, and the client makes sure.
            return self._appended(found.size_bytes, completed=True)

    async def _tell(self, _request: Request, file_id: str, _body: Body) -> Answer:
        with self._admit("read"):
            file = await self._current(file_id)
        if file.status.final and file.status is not FileStatus.COMPLETED:
            raise FileNotWritable(file)
        headers = [
            (b"upload-offset", b"%d" % file.bytes_received),
            (b"upload-length", b"%d" % file.size_bytes),
            (b"upload-metadata", encode_metadata(file)),
        ]
        return Answer(200, headers)

    async def _cancel(self, _request: Request, file_id: str, _body: Body) -> Answer:
        """DELETE is CancelFile. Of one URL it is always the same request: sent again, it is answered again."""
        with self._admit("cancel"):
            cancel = self._uploads.cancel_file(file_id, "", _request_id(file_id), CALLER)
            await self._in_time(cancel, OutcomeUnknown)
        return Answer(NO_CONTENT)

    # Bytes ---------------------------------------------------------------------------------------------------------

    async def _transfer(self, request: Request, file_id: str, offset: int, body: Body) -> Answer:
        checksum = request.checksum()
        _check_id(file_id)
        with self._admit("upload"):
            upload = await self._ingest.open(file_id, offset, CALLER)
            try:
                transfer = Transfer(upload, body, checksum, idle_seconds=self._idle)
                completed = await transfer.run(request.body_bytes)
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

    async def _current(self, file_id: str) -> File:
        """The file with its offset as the next PATCH must have it."""
        if file_id in self._closing:
            await self._wait_closed(file_id, _CLOSING_SECONDS)
        file = await self._in_time(self._uploads.get_file(file_id, CALLER), DatabaseFailure)
        if file.status is not FileStatus.UPLOADING or file.bytes_received < file.size_bytes:
            return file
        # Every byte is there but the commit was lost, with the process or with the database: to the client an offset
        # at the end means that all is done, so it has to be.
        await self._wait_closed(file_id, self._idle)
        if self._ingest.is_open(file_id):
            raise Overloaded("The last bytes are still being checked; ask again later", _CHECKING_SECONDS)
        file = await self._in_time(self._uploads.get_file(file_id, CALLER), DatabaseFailure)
        if file.status is not FileStatus.UPLOADING:
            return file
        upload = await self._ingest.open(file_id, file.size_bytes, CALLER)
        try:
            return await upload.commit("", CALLER)
        finally:
            await upload.close()

    async def _wait_closed(self, file_id: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ingest.wait_closed(file_id)

    async def _in_time(self, call: Awaitable[T], otherwise: Callable[[], UploadError]) -> T:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await call
        except TimeoutError:
            raise otherwise() from None

    def _expires(self) -> tuple[bytes, bytes]:
        return b"upload-expires", format_datetime(self._clock() + self._ttl, usegmt=True).encode()


def _file_id(scope: Scope) -> str:
    """What follows the door's path, or empty. From the raw path: an escaped slash is part of the id."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return unquote(raw.removeprefix(PATH.encode()).removeprefix(b"/").decode("latin-1"), errors="replace")


def _refused(request: Request, error: UploadError) -> Answer:
    log_refusal(_METHODS[request.method], CALLER.source.value, error)
    return answers.refused(error)


def _request_id(file_id: str) -> str:
    return f"tus:{quote(file_id, safe='')}"[:MAX_ID_CHARACTERS]


def _check_id(file_id: str) -> None:
    rules = Rules()
    rules.identifier("file_id", file_id)
    rules.check()


async def _send(send: Send, answer: Answer, body: Body) -> None:
    """Send an answer; to a client that may still be sending it is said before the rest is read and forgotten."""
    headers = answer.all_headers()
    unread = body.unread
    if unread:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": unread})
    if unread:
        await body.discard(LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
