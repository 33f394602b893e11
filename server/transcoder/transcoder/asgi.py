"""Decides how a request is read from an ASGI server and an answer handed to it.

Must not know routes, messages or servicers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from .errors import FaultError, FaultKind
from .metadata import Headers
from .router import MalformedPathError
from .timers import Limit, Timers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

JSON: Final = b"application/json"
# A cache may keep any answer that does not forbid it (RFC 9111, 4.2.2), and would tell a state that has passed.
UNCACHED: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_PATH_CHARS: Final = "/:@!$&'()*+,;="
"""What a path may hold as it is: an encoded colon would start no verb."""
_DRAIN_BYTES: Final = 256 * 1024 * 1024
_DRAIN_SECONDS: Final = 5.0


class DisconnectedError(Exception):
    """The client has left."""


class Sender:
    """Sends to the server; knows whether a response has begun, and that a send that fails is a disconnect."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Sends one ASGI message."""
        self.started = True
        try:
            await self._send(message)
        except OSError:
            raise DisconnectedError from None


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may cost before it is refused."""

    max_bytes: int
    total_seconds: float
    idle_seconds: float


def raw_path(scope: Scope) -> str:
    """The path as the client wrote it, without the server's root path and the query."""
    raw: bytes | None = scope.get("raw_path")
    try:
        text = quote(scope["path"], safe=_PATH_CHARS) if raw is None else raw.partition(b"?")[0].decode()
    except UnicodeDecodeError:
        raise MalformedPathError("not UTF-8") from None
    root = scope.get("root_path") or ""
    if root:
        for prefix in (root.rstrip("/"), quote(root.rstrip("/"))):
            if text == prefix or text.startswith(prefix + "/"):
                text = text[len(prefix) :]
                break
    if text.startswith(("http://", "https://")):  # a request line in absolute form
        _, slash, rest = text.partition("://")[2].partition("/")
        text = slash + rest
    return text or "/"


async def read_body(
    receive: Receive, headers: Headers, limits: BodyLimits, deadline: float | None, timers: Timers
) -> bytes:
    """The whole body, within its limits; FaultError past one of them."""
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length[:19]) > limits.max_bytes:
        raise _too_large(limits, unread=True)
    last = time.monotonic() + limits.total_seconds
    if deadline is not None:
        last = min(last, deadline)
    chunks: list[bytes] = []
    size = 0
    try:
        with Limit(timers, min(last - time.monotonic(), limits.idle_seconds)) as limit:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DisconnectedError
                chunk = message.get("body", b"")
                size += len(chunk)
                more = message.get("more_body", False)
                if size > limits.max_bytes:
                    raise _too_large(limits, unread=more)
                chunks.append(chunk)
                if not more:
                    return b"".join(chunks)
                if chunk:
                    limit.restart(min(last - time.monotonic(), limits.idle_seconds))
                else:
                    await asyncio.sleep(0)  # empty chunks without end must not hold the loop
    except TimeoutError:
        if deadline is not None and time.monotonic() >= deadline:
            raise FaultError(FaultKind.DEADLINE_EXCEEDED, "deadline exceeded", unread=True) from None
        raise FaultError(FaultKind.BODY_TIMEOUT, "the request body did not arrive in time", unread=True) from None


def _too_large(limits: BodyLimits, *, unread: bool) -> FaultError:
    text = f"the request body is larger than {limits.max_bytes} bytes"
    return FaultError(FaultKind.BODY_TOO_LARGE, text, unread=unread)


async def drain(receive: Receive) -> None:
    """Reads on for a moment, so that a client still sending gets to see the answer it has been sent."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= max(len(message.get("body", b"")), 1024)
                await asyncio.sleep(0)
    except TimeoutError:
        return


def announces_body(scope: Scope) -> bool:
    """Whether the client said that a body follows."""
    return any(key in (b"content-length", b"transfer-encoding") for key, _ in scope["headers"])


class UnaskedBody:
    """A request whose body nobody reads: its answer is out before what is left of the body is read off.

    A server that closes a connection with bytes unread resets it, and the client may lose the answer.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._over = False

    async def receive(self) -> Message:
        """The next message, for whoever watches the client."""
        message = await self._receive()
        self._over = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Sends one message; before the response is declared complete the body is read to its end."""
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not self._over:
            await self._send({**message, "more_body": True})
            await drain(self.receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


async def answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]], *, head: bool = False
) -> None:
    """A complete response that no cache keeps; for HEAD all but its body."""
    listed = [*headers, *UNCACHED, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


async def answer_unread(
    send: Send, receive: Receive, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> None:
    """A response to a request whose body is not read to its end: the connection is closed after it."""
    listed = [*headers, *UNCACHED, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await drain(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer_empty(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A response that has no body by its status."""
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *UNCACHED]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
