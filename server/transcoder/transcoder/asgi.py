"""Decides how a request is read from an ASGI server and an answer handed to it.

Must not know routes, messages or servicers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

from .budget import SMALL_BYTES, BodyBudget
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
class BodyTimes:
    """How long a body may take to come."""

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


class Body:
    """A request's body: read within its limits, with a place in the budget until it is left.

    It takes its place before its first byte or, in chunks, as it grows. Use it as a context manager.
    """

    def __init__(self, receive: Receive, headers: Headers, most: int, budget: BodyBudget) -> None:
        """`most`: bytes; FaultError where the body is announced to be longer."""
        self._receive = receive
        self._most = most
        self._budget = budget
        self._taken = 0
        length = headers.get(b"content-length")
        # How long it will be; of one in chunks nobody knows.
        self._length = int(length[:19]) if length is not None and length.isdigit() else 0
        if self._length > most:
            raise self._too_large(unread=True)

    def __enter__(self) -> Self:
        if self._length > SMALL_BYTES:
            self._take(self._length)
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._taken)

    async def read(self, times: BodyTimes, deadline: float | None, timers: Timers) -> bytearray:
        """The whole body; FaultError past a limit."""
        last = time.monotonic() + times.total_seconds
        if deadline is not None:
            last = min(last, deadline)
        # Not a list of chunks: tiny ones would take a multiple of the body, and to join large ones takes a turn.
        data = bytearray()
        try:
            with Limit(timers, min(last - time.monotonic(), times.idle_seconds)) as limit:
                while True:
                    message = await self._next()
                    chunk = message.get("body", b"")
                    data += chunk
                    more = message.get("more_body", False)
                    if len(data) > self._most:
                        raise self._too_large(unread=more)
                    if len(data) > max(SMALL_BYTES, self._taken):
                        self._take(min(2 * len(data), self._most))
                    if not more:
                        return data
                    if chunk:
                        limit.restart(min(last - time.monotonic(), times.idle_seconds))
                    else:
                        await asyncio.sleep(0)  # empty chunks without end must not hold the loop
        except (FaultError, TimeoutError) as error:
            # The traceback of the error would keep them while what is left of the body is read off.
            data.clear()
            if isinstance(error, FaultError):
                raise
            if deadline is not None and time.monotonic() >= deadline:
                raise FaultError(FaultKind.DEADLINE_EXCEEDED, "deadline exceeded", unread=True) from None
            raise FaultError(FaultKind.BODY_TIMEOUT, "the request body did not arrive in time", unread=True) from None

    async def _next(self) -> Message:
        if self._taken:
            await self._budget.turn()
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        return message

    def _take(self, count: int) -> None:
        """Takes a place of so many bytes instead of the one it has."""
        self._budget.give_back(self._taken)
        self._taken = 0
        if not self._budget.take(count):
            text = "too many long request bodies at once"
            raise FaultError(FaultKind.OVERLOADED, text, unread=True, limit=self._budget.most)
        self._taken = count

    def _too_large(self, *, unread: bool) -> FaultError:
        text = f"the request body is larger than {self._most} bytes"
        return FaultError(FaultKind.BODY_TOO_LARGE, text, unread=unread, limit=self._most)


async def drain(receive: Receive, budget: BodyBudget) -> None:
    """Reads on for a moment, so that a client still sending gets to see the answer it has been sent."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                await budget.turn()
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= max(len(message.get("body", b"")), 1024)
    except TimeoutError:
        return


def announces_body(scope: Scope) -> bool:
    """Whether the client said that a body follows."""
    return any(key in (b"content-length", b"transfer-encoding") for key, _ in scope["headers"])


class UnaskedBody:
    """A request whose body nobody reads: its answer is out before what is left of the body is read off.

    A server that closes a connection with bytes unread resets it, and the client may lose the answer.
    """

    def __init__(self, receive: Receive, send: Send, budget: BodyBudget) -> None:
        self._receive = receive
        self._send = send
        self._budget = budget
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
            await drain(self.receive, self._budget)
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
    send: Send,
    receive: Receive,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    budget: BodyBudget,
) -> None:
    """A response to a request whose body is not read to its end: the connection is closed after it."""
    await answer(UnaskedBody(receive, send, budget).send, status, body, [*headers, (b"connection", b"close")])


async def answer_empty(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A response that has no body by its status."""
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *UNCACHED]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
