"""Decides how a stream of responses is framed: lines of JSON, server-sent events, or raw bytes.

Must not know ASGI: frames leave as bytes.
"""

import random
from typing import Any, Final, Protocol

import grpc

from .binding import Binding
from .metadata import Headers
from .status import Outcome, StatusWriter

NDJSON: Final = b"application/x-ndjson"
EVENT_STREAM: Final = b"text/event-stream"
UNTYPED: Final = b"application/octet-stream"
HEARTBEAT: Final = b": heartbeat\n\n"
# nginx passes a stream on as it comes only if told to; with gzip it would wait for a full buffer.
UNBUFFERED: Final = (b"x-accel-buffering", b"no")
_LINES: Final = (NDJSON, b"application/ndjson", b"application/jsonl")
_NOT_IN_ID: Final = ("\n", "\r", "\0")
_RETRY_MILLISECONDS: Final = (2_000, 5_000)


class Framer(Protocol):
    """How one stream is written."""

    status_when_empty: int
    """The HTTP status of a stream that ends with OK before its first message."""
    heartbeat: bytes
    """What keeps a silent connection open; empty for nothing."""
    tells_unavailable: bool
    """Whether a stream of status 200 tells of UNAVAILABLE before the first message."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the response, once its first message is known."""

    def frame(self, message: Any) -> bytes:
        """One message; ValueError where it cannot be printed."""

    def end(self, outcome: Outcome | None) -> bytes | None:
        """What follows the last message; None where only a broken connection can tell of the error."""


class Lines:
    """`{"result": …}` a line, and `{"error": Status}` last if the call fails."""

    status_when_empty = 204
    heartbeat = b""
    tells_unavailable = False

    def __init__(self, binding: Binding, writer: StatusWriter, content_type: bytes) -> None:
        self._text = binding.response.to_text
        self._writer = writer
        self._content_type = content_type

    def headers(self) -> list[tuple[bytes, bytes]]:
        """JSON lines, or what the client accepts them as; no proxy gathers them."""
        return [(b"content-type", self._content_type), UNBUFFERED]

    def frame(self, message: Any) -> bytes:
        """One line."""
        return f'{{"result":{self._text(message)}}}\n'.encode()

    def end(self, outcome: Outcome | None) -> bytes:
        """The error as a line; nothing after success."""
        if outcome is None:
            return b""
        return b'{"error":%b}\n' % self._writer.body(outcome)


class Events:
    """Server-sent events: a message each, then `event: end` with the Status."""

    status_when_empty = 204
    heartbeat = HEARTBEAT
    # To an EventSource any status but 200 is an end for good (HTML, 9.2.3): a restart would silence every open page.
    tells_unavailable = True

    def __init__(self, binding: Binding, writer: StatusWriter) -> None:
        self._text = binding.response.to_text
        self._id = binding.method.sse_id
        self._writer = writer
        # Browsers come back after so many milliseconds: not all at once after a restart.
        self._retry = f"retry: {random.randint(*_RETRY_MILLISECONDS)}\n"  # noqa: S311 - spreads load, hides nothing

    def headers(self) -> list[tuple[bytes, bytes]]:
        """An event stream that no proxy gathers."""
        return [(b"content-type", EVENT_STREAM), UNBUFFERED]

    def frame(self, message: Any) -> bytes:
        """One event; its id is what a reconnecting client sends back."""
        event_id = self._id(message) if self._id is not None else ""
        if not event_id or any(char in event_id for char in _NOT_IN_ID):
            return f"{self._once()}data: {self._text(message)}\n\n".encode()
        return f"{self._once()}id: {event_id}\ndata: {self._text(message)}\n\n".encode()

    def end(self, outcome: Outcome | None) -> bytes:
        """The last event, after success too: a client can tell an end from a broken connection."""
        status = self._writer.body(outcome or Outcome(grpc.StatusCode.OK))
        return b"%bevent: end\ndata: %b\n\n" % (self._once().encode(), status)

    def _once(self) -> str:
        retry, self._retry = self._retry, ""
        return retry


class Raw:
    """google.api.HttpBody: the bytes as they are, typed by the first message."""

    status_when_empty = 200
    heartbeat = b""
    tells_unavailable = False

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._content_type = b""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The content type of the first message, if there was one."""
        return [(b"content-type", self._content_type or UNTYPED)]

    def frame(self, message: Any) -> bytes:
        """The bytes of one message."""
        body = http_body(self._binding, message)
        self._content_type = self._content_type or content_type_of(body)
        return bytes(body.data)

    def end(self, outcome: Outcome | None) -> bytes | None:
        """No bytes of ours may get into a download: an error breaks it off."""
        return b"" if outcome is None else None


def http_body(binding: Binding, message: Any) -> Any:
    """The HttpBody of a response."""
    assert binding.response.to_body is not None  # noqa: S101 - for the type checker
    return binding.response.to_body(message)


def content_type_of(body: Any) -> bytes:
    """The content type that an HttpBody declares, if a header can hold it."""
    text: str = body.content_type
    return text.encode() if text.isascii() and text.isprintable() and text else UNTYPED


def framer_for(binding: Binding, writer: StatusWriter, headers: Headers) -> Framer:
    """The framing that a client's Accept header asks for."""
    if binding.response.to_body is not None:
        return Raw(binding)
    accept = accepted(headers)
    events, json = accept.get(EVENT_STREAM, 0.0), accept.get(b"application/json", 0.0)
    kind = max(_LINES, key=lambda name: accept.get(name, 0.0))
    lines = accept.get(kind, 0.0)
    if events and events >= max(json, lines):
        return Events(binding, writer)
    # JSON by name only: what parses a body as one value fails on the second line.
    return Lines(binding, writer, b"application/json" if json and json >= lines else kind)


def accepted(headers: Headers) -> dict[bytes, float]:
    """The media types that Accept names, with their weights."""
    result: dict[bytes, float] = {}
    values = b",".join(value for key, value in headers.raw if key.lower() == b"accept")
    for item in values.lower().split(b","):
        name, *parameters = (part.strip() for part in item.split(b";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        result[name] = weight
    return result
