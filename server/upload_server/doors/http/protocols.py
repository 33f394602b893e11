"""Decides what uvicorn's two protocols do where their defaults do not fit: bounds, and honest close codes.

Must not know the application. Every override names the fact about uvicorn 0.54 that makes it necessary; a regression
test watches each.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from google.rpc.code_pb2 import Code
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from upload_server.doors.http.asgi import status_body, status_of

# Bytes of request line and headers; httptools itself has no limit.
MAX_HEAD_BYTES: Final = 64 * 1024
# Seconds for a request's head to arrive; uvicorn waits for ever.
HEAD_SECONDS: Final = 20.0
# Seconds between the end of a socket's application and the end of its connection, whatever the page reads or sends.
LINGER_SECONDS: Final = 5.0
# Connections of one server, HTTP and WebSocket together; beyond them new ones are cut at once.
MAX_CONNECTIONS: Final = 8_192


def _refusal(line: str, reason: str, message: str) -> bytes:
    """Return a whole answer that ends the connection: there is no application to give it."""
    body = status_body(status_of(Code.INVALID_ARGUMENT, reason, message))
    head = f"HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


_HEAD_TOO_LARGE: Final = _refusal(
    "431 Request Header Fields Too Large", "HEAD_TOO_LARGE", f"A request's head has at most {MAX_HEAD_BYTES} bytes"
)
_MALFORMED: Final = _refusal(
    "400 Bad Request", "MALFORMED_REQUEST", "This is no HTTP/1.1 request, or its URL is longer than 64 KiB"
)
_NO_CLOSE_FRAME: Final = 1006


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a bound on connections, on the size of a request's head and on the time it takes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Whether a head is expected or has come in part: from the start, and then with each message.
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Count the connection, and start to wait for its first head."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that is still not complete after its bound."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # Most heads come whole and never need a timer.
            self._wait_for_head()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed as every error is told; uvicorn would send ``msg`` as text."""
        del msg
        self.transport.write(_MALFORMED)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that it is complete."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class HonestWebSocketProtocol(WebSocketsSansIOProtocol):
    """Tells the application how the page went: its close frame's code, 1005 for one without, 1006 when none came."""

    # The loop's time at which the page last sent anything.
    _heard_at = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn says 1005 here, which is also what it says of a close frame without a code. The first one counts."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _NO_CLOSE_FRAME})
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note that the page lives."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """A page whose pong waits behind its bytes, or behind our own back-pressure, is not dead; a silent one is cut.

        uvicorn closes the transport and thereby waits for a page that reads no more.
        """
        if self.read_paused or self._heard_at > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        """After the application has ended, a page that does not read or answer the close is cut off soon."""
        try:
            await super().run_asgi()
        finally:
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)
