"""Decides who answers a request on the HTTP port: health, metrics, pages, the doors for bytes, or else the transcoder.

Must not know what the transcoder serves. The outermost net is here: an error outside of a call, such as a page's, is
INTERNAL with an incident id.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import unquote

import structlog
from google.rpc.code_pb2 import Code

from upload_server.domain.errors import DatabaseFailure, ShuttingDown, UploadError
from upload_server.doors.calls import Calls, unforeseen
from upload_server.doors.errors import to_status
from upload_server.doors.http.asgi import (
    Application,
    Message,
    Receive,
    Scope,
    Send,
    headers_for,
    headers_of,
    refuse,
    refuse_handshake,
    refuse_method,
    respond,
    respond_empty,
    status_body,
    status_of,
)
from upload_server.doors.http.pages import Page, serve_page
from upload_server.doors.http.session import PATH as SESSION_PATH
from upload_server.doors.http.session import SessionDoor
from upload_server.doors.http.tickets import PATH as TICKETS_PATH

WEBSOCKET_PREFIX: Final = b"/api/v1/upload/ws/"
TUS_PATH: Final = "/api/v1/tus"
# Decoded, as what a path of a WebSocket begins with in any spelling.
_WEBSOCKET_PATH: Final = WEBSOCKET_PREFIX.decode()
_BELOW_TUS: Final = f"{TUS_PATH}/"
_FILES: Final = "/api/v1/files/"
_CONTENT: Final = "/content"
# DELETE is the transcoder's.
_CONTENT_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS")
# Seconds a readiness check may take; a store that answers later is not ready.
READY_SECONDS: Final = 2.0
_READ_ONLY: Final = frozenset({"GET", "HEAD"})


# Answers a GET or HEAD of one path.
Answer = Callable[[Scope, Send], Awaitable[None]]
# Answers a GET or HEAD of the bytes of the file with this id.
ContentAnswer = Callable[[str, Receive, Scope, Send], Awaitable[None]]
# Serves one WebSocket of the file with this id, to its end.
SocketDoor = Callable[[str, Scope, Receive, Send], Awaitable[None]]


class Exposition(Protocol):
    """Renders the metrics."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition, in a form that an ``Accept`` header takes, and its media type."""


class WebApp:
    """The ASGI application of the HTTP port. Give it to a Guard, never to a server directly."""

    def __init__(
        self,
        *,
        transcoder: Application,
        websocket: SocketDoor,
        ready: Callable[[], Awaitable[None]],
        metrics: Exposition,
        calls: Calls,
        pages: Mapping[str, Page],
        tus: Application | None = None,
        content: ContentAnswer | None = None,
        tickets: Application | None = None,
    ) -> None:
        """``ready`` raises an UploadError while the service cannot take work; ``pages`` by path.

        ``calls`` knows who may read the metrics.
        """
        self._transcoder = transcoder
        self._websocket = websocket
        self._tus = tus
        self._content = content
        self._tickets = tickets
        self._ready = ready
        self._metrics = metrics
        self._calls = calls
        self._own: dict[str, Answer] = {path: functools.partial(serve_page, page) for path, page in pages.items()}
        self._own |= {"/healthz": _answer_alive, "/readyz": self._answer_ready, "/metrics": self._answer_metrics}
        self._session = SessionDoor(calls)
        self._draining = False
        # One exposition at a time: it runs in a thread and its cost grows with the number of series.
        self._rendering = asyncio.Lock()
        # Bound now: structlog's own proxy would look the configuration up for every request.
        self._log = structlog.get_logger("upload_server.doors.http").bind()

    def drain(self) -> None:
        """From now on answer ``/readyz`` with 503, and close connections after their answer."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            await self._dispatch(scope, receive, noting)
        except asyncio.CancelledError:
            if not self._draining:
                raise
            # The grace is over, and uvicorn cuts what still runs, such as a request that never came whole.
            if not status:
                await refuse(noting, ShuttingDown())
        except Exception as error:
            internal = unforeseen("http.failed", error, method=scope["method"], path=scope["path"])
            if status:  # the answer has begun: all that is left is to break the connection
                raise
            await respond(noting, 500, status_body(to_status(internal)))
        finally:
            seconds = round(time.monotonic() - began, 6)
            self._log.debug("http.answered", method=scope["method"], path=scope["path"], status=status, seconds=seconds)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        answer = self._own.get(path)
        if answer is not None:
            await _read_only(answer, scope, send)
        elif path == SESSION_PATH:
            await self._session(scope, receive, send)
        elif self._tickets is not None and path == TICKETS_PATH:
            await self._tickets(scope, receive, send)
        elif self._content is not None and scope["method"] != "DELETE" and (file_id := _content_of(scope)):
            await self._answer_content(self._content, file_id, receive, scope, send)
        elif self._tus is not None and (path == TUS_PATH or path.startswith(_BELOW_TUS)):
            await self._tus(scope, receive, send)
        elif path.startswith(_WEBSOCKET_PATH) and _socket_file_id(scope) is not None:
            await _read_only(_answer_upgrade_required, scope, send)
        else:
            await self._transcoder(scope, receive, send)

    async def _answer_content(
        self, answer: ContentAnswer, file_id: str, receive: Receive, scope: Scope, send: Send
    ) -> None:
        if scope["method"] in _READ_ONLY:
            await answer(file_id, receive, scope, send)
        elif scope["method"] == "OPTIONS":
            await respond_empty(send, [(b"allow", ", ".join(_CONTENT_METHODS).encode())])
        else:
            await refuse_method(send, scope["method"], *_CONTENT_METHODS)

    async def _answer_ready(self, _scope: Scope, send: Send) -> None:
        problem = await self._problem()
        if problem is None:
            await respond(send, 200, b'{"status":"ready"}')
        else:
            await respond(send, 503, status_body(to_status(problem)), extra=headers_for(problem))

    async def _problem(self) -> UploadError | None:
        if self._draining:
            return ShuttingDown()
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready()
        except UploadError as error:
            return error
        except TimeoutError:
            return DatabaseFailure()
        return None

    async def _answer_metrics(self, scope: Scope, send: Send) -> None:
        try:
            await self._calls.identify("Metrics", scope)
        except UploadError as error:
            await refuse(send, error)
            return
        accept = b",".join(headers_of(scope, b"accept")).decode("latin-1")
        async with self._rendering:
            body, kind = await asyncio.to_thread(self._metrics.render, accept)
        await respond(send, 200, body, kind.encode())

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        file_id = _socket_file_id(scope)
        if file_id is not None:
            await self._websocket(file_id, scope, receive, send)
            return
        await receive()  # websocket.connect
        status = status_of(Code.NOT_FOUND, "NOT_FOUND", "No WebSocket is served at this path")
        await refuse_handshake(send, 404, status_body(status))


def _socket_file_id(scope: Scope) -> str | None:
    """Return the file id of a WebSocket path, or None. Taken from the raw path: an escaped slash is part of the id."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if not raw.startswith(WEBSOCKET_PREFIX):
        return None
    segment = raw.removeprefix(WEBSOCKET_PREFIX)
    if not segment or b"/" in segment:
        return None
    return unquote(segment.decode("latin-1"), errors="replace")


def _content_of(scope: Scope) -> str:
    """Return the id of the file whose bytes are asked for, by its own path or by that of its upload; else empty."""
    path: str = scope["path"]
    file_id = ""
    if path.startswith(_FILES) and path.endswith(_CONTENT):
        file_id = path[len(_FILES) : -len(_CONTENT)]
    elif path.startswith(_BELOW_TUS) and scope["method"] == "GET":
        file_id = path[len(_BELOW_TUS) :]
    return "" if "/" in file_id else file_id


async def _read_only(answer: Answer, scope: Scope, send: Send) -> None:
    method = scope["method"]
    if method in _READ_ONLY:
        await answer(scope, send)
        return
    await refuse_method(send, method, "GET", "HEAD")


async def _answer_alive(_scope: Scope, send: Send) -> None:
    await respond(send, 200, b'{"status":"ok"}')


async def _answer_upgrade_required(_scope: Scope, send: Send) -> None:
    status = status_of(Code.FAILED_PRECONDITION, "UPGRADE_REQUIRED", "This path takes WebSocket handshakes only")
    extra = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await respond(send, 426, status_body(status), extra=extra)
