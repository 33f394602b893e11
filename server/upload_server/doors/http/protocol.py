"""Decides what uvicorn's HTTP protocol does where its defaults do not fit: bounds.

Must not know the application. Every override names the fact about uvicorn 0.54 that makes it necessary; a regression
test watches each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from upload_server.doors.http.asgi import last_answer
from upload_server.doors.http.pour import POUR, InThread, Pouring, Source
from upload_server.doors.http.pump import LEAST_BYTES, LEND, LentSocket, lend
from upload_server.doors.http.tls import CERTIFICATE, shown_on
from upload_server.doors.http.untaken import HIGH_WATER_BYTES, Untaken

# Bytes of request line and headers; httptools itself has no limit.
MAX_HEAD_BYTES: Final = 64 * 1024
# Seconds for a request's head to arrive; uvicorn waits for ever.
HEAD_SECONDS: Final = 20.0
# Seconds and bytes that the rest of a request may take once it was answered.
REST_SECONDS: Final = 5.0
REST_BYTES: Final = 256 * 1024
# Trailers together; nobody here reads one.
_TRAILER_BYTES: Final = 8 * 1024
# What a header or a chunk costs besides its bytes.
_HEADER_COST: Final = 32
# Parsed in one turn of the loop, where it is not one body of known length: some 3,000 chunks.
_TURN_BYTES: Final = 16 * 1024
# Connections of one server, HTTP and WebSocket together. Beyond them one that is idle makes way for a new one; when
# none is, the new one is cut at once.
MAX_CONNECTIONS: Final = 8_192
# So many are looked at to find one that is idle.
_LOOKED_AT: Final = 256


_HEAD_TOO_LARGE: Final = last_answer(
    "431 Request Header Fields Too Large", "HEAD_TOO_LARGE", f"A request's head has at most {MAX_HEAD_BYTES} bytes"
)
_MALFORMED: Final = last_answer(
    "400 Bad Request", "MALFORMED_REQUEST", "This is no HTTP/1.1 request, or its URL is longer than 64 KiB"
)
_UNKNOWN_CODING: Final = last_answer(
    "501 Not Implemented",
    "UNSUPPORTED_TRANSFER_ENCODING",
    "A body is sent whole or with Transfer-Encoding: chunked",
)


class _HeldFlow(FlowControl):
    """uvicorn's flow control; while it is held, a wish to read on is noted and not carried out."""

    held = False

    def resume_reading(self) -> None:
        """Read on, or as soon as it is no longer held."""
        if self.held:
            self.read_paused = False
        else:
            super().resume_reading()


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds: on connections, heads, trailers, what one turn of the loop parses, and unasked bodies."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        untaken: Untaken,
        max_connections: int,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._untaken = untaken
        self._max_connections = max_connections
        self._idle_since = self.loop.time()
        # A request was answered, and the peer has not read the answer: the next one waits for that.
        self._waits_for_peer = False
        # Whether a head is expected or has come in part: from the start, and then with each message.
        self._in_head = True
        self._head_bytes = 0
        # Closes a connection that does not send its head, or the rest of a body that nobody reads, in time.
        self._deadline: asyncio.TimerHandle | None = None
        # Of a body of known length, what is still to come; it costs one callback however long it is.
        self._body_left = 0
        # What may still come of a request that was answered, and of trailers.
        self._rest_left = 0
        self._trailer_left = 0
        # Received and not parsed yet.
        self._unparsed = bytearray()
        # While a thread reads the body.
        self._lent: LentSocket | None = None
        # While threads send an answer's bytes.
        self._pouring: Pouring | None = None
        self._refusal = _MALFORMED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Count the connection, and start to wait for its first head."""
        super().connection_made(transport)
        self.flow = self._flow = _HeldFlow(transport)
        if self.scheme == "https" and (shown := shown_on(transport)) is not None:
            # uvicorn puts it into the scope of each request of this connection, and of its WebSocket.
            self.app_state[CERTIFICATE] = shown
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        if len(self.connections) > self._max_connections and not make_place(self.connections, self):
            transport.abort()
            return
        self._wait_for_head()

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits here."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer and what was not parsed."""
        self._stop_waiting()
        self._unparsed.clear()
        if self._lent is not None:
            self._lent.revoke()
        if self._pouring is not None:
            self._pouring.stop()
        if self.cycle is not None:
            # Else the request, the connection and its body would keep one another in memory until a collection.
            self.cycle.scope.pop(LEND, None)  # type: ignore[typeddict-item]  # ours
            self.cycle.scope.pop(POUR, None)  # type: ignore[typeddict-item]  # ours
        self._untaken.release(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Count what the peer does not read."""
        super().pause_writing()
        self._untaken.hold(self.transport)

    def resume_writing(self) -> None:
        """Go on: the peer has read."""
        super().resume_writing()
        self._untaken.release(self.transport)
        if self._waits_for_peer:
            self._waits_for_peer = False
            self.on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came, some of it in later turns of the loop: a read of 256 KiB can hold 40,000 chunks."""
        if self._unparsed:
            self._unparsed += data
            return
        taken = self._parse_some(data)
        if taken < len(data):
            self._unparsed += memoryview(data)[taken:]
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        # Nothing more is read meanwhile: what piles up here is bounded by one read.
        self._flow.held = True
        self.transport.pause_reading()
        self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._unparsed.clear()
        elif self.pipeline or self._waits_for_peer or self._lent is not None:
            # Requests that wait for their turn are parsed no further; `on_response_complete` goes on, or `_take_back`.
            return
        if self._unparsed:
            taken = self._parse_some(bytes(self._unparsed[: max(_TURN_BYTES, self._body_left)]))
            del self._unparsed[:taken]
        if self._unparsed:
            self._go_on_soon()
        else:
            self._flow.held = False
            if not self._flow.read_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def _parse_some(self, data: bytes) -> int:
        """Parse as much as one turn may; returns how many bytes that was."""
        if len(data) > (most := max(_TURN_BYTES, self._body_left)):
            data = data[:most]
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # Most heads come whole and never need a timer.
            self._wait_for_head()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()
        return len(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that does not parse with a Status, as every error; uvicorn would send ``msg`` as text."""
        del msg
        self.transport.write(self._refusal)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self._in_head = True
        self._trailer_left = _TRAILER_BYTES

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; drop a trailer.

        uvicorn appends trailers to the headers of the running request: an ``Origin`` or a tus method would then change
        after everything in front has judged them (RFC 9110, 6.5.1).
        """
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailer_left -= len(name) + len(value) + _HEADER_COST
        if self._trailer_left < 0:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Note that it is complete, and refuse what RFC 9112 has a server refuse; httptools lets it through."""
        refusal = self._judged()
        if refusal is not None:
            self._refusal = refusal
            raise ValueError("refused")
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.__class__ = _UntilClose
        # Under TLS what lies in the socket is no body.
        if self._body_left >= LEAST_BYTES and self.scheme == "http" and not self.parser.should_upgrade():
            self.scope[LEND] = partial(self._lend, self.cycle)  # type: ignore[typeddict-unknown-key]  # ours
        if self.scope["method"] == "GET" and self.scope["scheme"] == "http":
            self.scope[POUR] = partial(self._pour, self.cycle)  # type: ignore[typeddict-unknown-key]  # ours

    def _judged(self) -> bytes | None:
        """Return the refusal of a head, or None; notes the length of the body."""
        hosts, codings, self._body_left = 0, b"", 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings += b"," + value.lower()
            elif name == b"content-length":
                self._body_left = int(value) if value.isdigit() else 0
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"} or not self.url.startswith((b"/", b"*")) or (hosts == 0 and version == "1.1"):
            return _MALFORMED
        if codings:
            named = [coding.strip() for coding in codings[1:].split(b",")]
            if named != [b"chunked"]:
                return _MALFORMED if set(named) <= {b"chunked", b"identity"} else _UNKNOWN_CODING
            self._body_left = 0
        return None

    def on_body(self, body: bytes) -> None:
        """Take some of a body; what comes after the answer is bounded."""
        self._body_left = max(0, self._body_left - len(body))
        if self.cycle is not None and self.cycle.response_complete:
            self._rest_left -= len(body) + _HEADER_COST
            if self._rest_left < 0:
                self.transport.close()
        super().on_body(body)

    def _lend(self, cycle: RequestResponseCycle) -> LentSocket | None:
        """Lend the socket if all that came of this request is taken, and what comes next is much more of its body."""
        waits = self._unparsed or cycle.body or self._flow.held
        if waits or cycle is not self.cycle or self._body_left < LEAST_BYTES or self.transport.is_closing():
            return None
        self._lent = lend(self.transport.get_extra_info("socket").fileno(), self._body_left, self._take_back)
        if self._lent is not None:
            self._flow.held = True
            self.transport.pause_reading()
        return self._lent

    def _take_back(self, count: int) -> None:
        """Read on behind ``count`` bytes of the body, which a thread has read."""
        self._lent, self._flow.held = None, False
        if self.transport.is_closing():
            return
        if count:
            self._body_left -= count
            self.parser = _RestOfBody(self._take_rest)  # type: ignore[assignment]  # as the parser
            if not self._body_left:
                self._end_body()
        if not self._flow.read_paused:
            self.transport.resume_reading()

    def _take_rest(self, data: bytes) -> None:
        """Take what is left of such a body, and parse what follows."""
        left = self._body_left
        self.on_body(data[:left])
        if len(data) >= left:
            self._end_body()
            if data := data[left:]:
                self.parser.feed_data(data)

    def _end_body(self) -> None:
        """End such a body: what follows is parsed afresh."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.on_message_complete()

    async def _pour(
        self, cycle: RequestResponseCycle, in_thread: InThread, source: Source, start: int, count: int
    ) -> bool:
        """Send bytes of a file as the body of an answer whose head was sent; False when the peer is gone."""
        # The head goes before: what the transport still holds has to be out.
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits(high=0)
            await self._flow.drain()
        if self.transport.is_closing():
            return False
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._pouring = Pouring(self.transport.get_extra_info("socket"))
        sent = 0
        try:
            sent = await self._pouring.send(in_thread, source, start, count)
        finally:
            self._pouring.close()
            self._pouring = None
            cycle.expected_content_length -= sent
            if sent < count:
                # Else uvicorn would take the answer for one that the application has forgotten to end.
                cycle.disconnected = True
                self.transport.abort()
        return sent == count

    def on_message_complete(self) -> None:
        """Note that the rest of an answered request has come."""
        if not self._in_head:
            self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After the answer: let the rest of the request come, but neither long nor much of it."""
        # Of requests in a pipeline the cycle is the last one's, which is not answered yet.
        rest_comes = not self.pipeline and self.cycle.more_body
        self._idle_since = self.loop.time()
        if self._flow.write_paused and not self.transport.is_closing():
            # Else a peer that never reads could have one answer after the other made.
            self._waits_for_peer = True
            self._flow.pause_reading()
            return
        super().on_response_complete()
        if self._unparsed and not self.pipeline:
            self._go_on_soon()
        if rest_comes and not self.transport.is_closing() and not self._in_head:
            self._rest_left = REST_BYTES
            self._close_in(REST_SECONDS)

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._head_bytes = 0
            self._close_in(HEAD_SECONDS)

    def _close_in(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_place(connections: Iterable[asyncio.Protocol], new: asyncio.Protocol | None = None) -> bool:
    """Close the connection that has had no request for the longest, of some: the new one may bring a cancel."""
    idle = [
        other
        for other in islice(connections, _LOOKED_AT)
        if isinstance(other, BoundedHttpProtocol) and other is not new and other.idle
    ]
    if not idle:
        return False
    min(idle, key=lambda other: other._idle_since).transport.abort()  # noqa: SLF001 - its own kind
    return True


class _RestOfBody:
    """Stands in for the parser in the rest of a body of which a thread has read a part: the parser cannot skip."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.feed_data = take

    def should_upgrade(self) -> bool:
        """As the parser: no socket is lent under a request that wants another protocol."""
        return False


class _UntilClose(RequestResponseCycle):
    """An answer to HTTP/1.0 that does not say its length: it ends with the connection (RFC 9112, 6.1)."""

    _open_ended = False

    async def send(self, message: Any) -> None:
        """Send one message; where uvicorn would send chunks, each message has just the bytes that it expects."""
        if not self.response_started:
            self._open_ended = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            self.chunked_encoding = False if self._open_ended else None
        elif self._open_ended:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
