"""Decides how a whole answer goes out over ASGI, and how the HTTP port's own refusals look as a Status.

Must not know what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from transcoder.asgi import UNCACHED
from upload_server.domain.errors import UploadError
from upload_server.doors.errors import DOMAIN, challenge, http_status_of, pack, to_status

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# In the scope of a request that comes from a page of a foreign origin, and so may change nothing.
FOREIGN: Final = "upload_server.foreign"
JSON: Final = b"application/json"


def headers_of(scope: Scope, name: bytes) -> list[bytes]:
    """Every value of a header, in order; ``name`` in lower case."""
    return [value for key, value in scope["headers"] if key == name]


def to_json(message: ProtoMessage) -> dict[str, Any]:
    """A message in ProtoJSON with snake_case names and its defaults written out."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def status_of(code: Code, reason: str, message: str, **metadata: str) -> Status:
    """Make the Status of a refusal that only the HTTP port knows; all others come from the table of errors."""
    return Status(
        code=code, message=message, details=pack([ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)])
    )


def status_body(status: Status) -> bytes:
    """A Status as an HTTP body."""
    return json.dumps(to_json(status)).encode()


def last_answer(line: str, reason: str, message: str) -> bytes:
    """Return a whole answer that ends the connection, for where there is no application to give it."""
    body = status_body(status_of(Code.INVALID_ARGUMENT, reason, message))
    headers = [*whole(body, JSON, ()), (b"connection", b"close")]
    lines = [f"HTTP/1.1 {line}".encode(), *(b": ".join(header) for header in headers)]
    return b"\r\n".join([*lines, b"", body])


async def respond_empty(send: Send, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer an HTTP request with nothing but headers."""
    await send({"type": "http.response.start", "status": 204, "headers": [*UNCACHED, *headers]})
    await send({"type": "http.response.body", "body": b""})


async def respond(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send one whole answer of an HTTP request."""
    await send({"type": "http.response.start", "status": status, "headers": whole(body, content_type, extra)})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: UploadError) -> None:
    """Answer an HTTP request with an error that every door knows."""
    await respond(send, http_status_of(error), status_body(to_status(error)), extra=headers_for(error))


async def refuse_method(send: Send, method: str, *allowed: str) -> None:
    """Answer a request whose path takes other methods."""
    text = f"This path takes {' and '.join(allowed)}, not {method[:32]}"
    status = status_of(Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", text)
    await respond(send, 405, status_body(status), extra=[(b"allow", ", ".join(allowed).encode())])


def headers_for(error: UploadError) -> Headers:
    """Return the headers that say of an error when to ask again, or which credential it takes."""
    headers: Headers = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_seconds)))
    if asked := challenge(error):
        headers.append((b"www-authenticate", asked.encode()))
    return headers


async def is_gone(receive: Receive) -> bool:
    """Whether the client has left, as far as it shows by now; every byte of its request must have been read."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
    return False


async def refuse_handshake(send: Send, status: int, body: bytes) -> None:
    """Answer a WebSocket handshake with a plain HTTP answer: no socket comes to be."""
    headers = whole(body, JSON, ())
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def whole(body: bytes, content_type: bytes, extra: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers of an answer that is complete, and that no cache may keep nor browser guess about."""
    return [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *UNCACHED,
        *extra,
    ]
