"""Decides what uvicorn's WebSocket protocol does where its defaults do not fit: honest ends, bounded turns and memory.

A message of bytes in one frame goes around it: each read of it is unmasked and handed on at once.
Must not know the door. Every override names the fact about uvicorn 0.54 that makes it necessary; a regression test
watches each.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from google.rpc.code_pb2 import Code
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.speedups import apply_mask

from upload_server.domain.errors import UnexpectedMessage, UploadError
from upload_server.doors.http.asgi import JSON, Receive, Scope, Send, last_answer, status_body, status_of, whole
from upload_server.doors.websocket.frames import Frames, Head, Opcode, read_head
from upload_server.ingest import Memory

# Seconds between the end of a socket's application and the end of its connection, whatever the page reads or sends.
LINGER_SECONDS: Final = 5.0
# Seconds that the answer to a page's close waits for the application to end.
_ANSWER_SECONDS: Final = 1.0
# Frames parsed in one turn of the loop: about a millisecond. A read of 256 KiB can hold 40,000.
_TURN_FRAMES: Final = 64
_LITTLE_BYTES: Final = 64 * 1024
# Seconds that a page waits which sends small frames too fast.
_EARLY_SECONDS: Final = 0.05
_NO_CLOSE_FRAME: Final = 1006
# Characters of what is wrong with a handshake.
_MOST_TEXT: Final = 256
_PROTOCOL_ERROR: Final = 1002
_NO_HANDSHAKE: Final = last_answer(
    "400 Bad Request",
    "MALFORMED_REQUEST",
    "A WebSocket handshake has no body, at most 128 headers and 8 KiB in each of its lines",
)


class HonestWebSocketProtocol(WebSocketsSansIOProtocol):
    """Tells the application how the page went, and lets in a few frames of a page at a time.

    ``websocket.disconnect``: a close frame of the page has its code (1005 for one without) and its ``reason``; no close
    frame is 1006; a close of ours has no ``reason``. ``websocket.refused``: frames of the page broke a rule, ``error``
    says which; the application should say so and close, meanwhile the protocol drops what else comes.

    While memory is short the protocol reads one piece of a quarter MiB whenever the application asks, so that a close
    frame is still heard: uvicorn by itself reads ahead until a message is whole, and that may be a MiB.
    """

    # The loop's time at which the page last sent anything.
    _heard_at = 0.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # `websockets` refuses in plain text.
        self.conn.reject = _refused_handshake  # type: ignore[method-assign]
        self._memory = memory
        # Waits for memory, to read on.
        self._gate: asyncio.Task[None] | None = None
        self._frames = Frames()
        # Received and not parsed yet, at most one read and a head.
        self._unparsed = memoryview(b"")
        # Of the frame under way: what is to come, and the mask of its next byte if it is a whole message of bytes.
        self._frame_left = 0
        self._mask: bytes | None = None
        self._turn: asyncio.Handle | None = None
        # The page broke a rule: its frames are dropped, but for a close.
        self._refused = False
        self._dropping = False
        # Our answer to the page's close frame, and what gives it if the application takes too long.
        self._answer = b""
        self._answering: asyncio.Handle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn says 1005 here, which is also what it says of a close frame without a code. The first one counts."""
        for waiting in (self._gate, self._turn, self._answering):
            if waiting is not None:
                waiting.cancel()
        self._unparsed = memoryview(b"")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _NO_CLOSE_FRAME})
        super().connection_lost(exc)

    # From the page ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Note that the page lives; parse some of what came, and read no further while memory is short.

        uvicorn parses all of it in one turn of the loop, and leaves a head open that `websockets` does not take.
        """
        self._heard_at = self.loop.time()
        if not self.handshake_initiated:
            # The request's head: uvicorn hands it over whole, and alone.
            super().data_received(data)
            if not self.handshake_initiated:
                self.transport.write(_NO_HANDSHAKE)
                self.transport.close()
            return
        self._unparsed = memoryview(self._unparsed.tobytes() + data if self._unparsed else data)
        if self._turn is None:
            self._go_on()
        elif not self.transport.is_closing():
            self.transport.pause_reading()
        if self._is_crowded() and not (self.read_paused or self._drains() or self.transport.is_closing()):
            self.read_paused = True
            self.transport.pause_reading()
            self._read_on_later()

    def _go_on(self) -> None:
        """Parse as much as one turn may, and read on once that is all there is and the application has taken it."""
        self._turn = None
        wait = self._parse_some()
        if self.transport.is_closing():
            self._unparsed = memoryview(b"")
            return
        if len(self._unparsed) < _LITTLE_BYTES:
            # What is left of a read must not keep all of it in memory.
            self._unparsed = memoryview(self._unparsed.tobytes())
        if wait is not None:
            self._turn = self.loop.call_later(wait, self._go_on) if wait else self.loop.call_soon(self._go_on)
            self.transport.pause_reading()
        elif self._may_parse():
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _may_parse(self) -> bool:
        """Whether the application can take what comes: it has accepted the page, and taken the message before."""
        return self.handshake_complete and (not self.read_paused or self._drains())

    def _drains(self) -> bool:
        """Whether what comes is read only to hear the page's close."""
        return self.close_sent or self._refused

    def _parse_some(self) -> float | None:
        """Parse what came, within a turn; returns in how many seconds to go on, None for when there is more or room."""
        if not self._may_parse():
            return None
        now, frames = self.loop.time(), 0
        while self._unparsed and not self.transport.is_closing():
            if not self._frame_left:
                if frames == _TURN_FRAMES:
                    return 0.0 if self._may_parse() else None
                frames += 1
                if (head := read_head(self._unparsed)) is None:
                    return None
                if self._frames.is_early(head, now):
                    return _EARLY_SECONDS
                self._enter(head, now)
            piece = self._unparsed[: self._frame_left]
            self._unparsed = self._unparsed[len(piece) :]
            self._frame_left -= len(piece)
            self._take(piece)
        return None

    def _take(self, piece: memoryview) -> None:
        """Take some of the frame under way, or drop it."""
        if self._mask is not None:
            if not piece and self._frame_left:
                return
            turned = len(piece) % len(self._mask)
            data, self._mask = apply_mask(piece, self._mask), self._mask[turned:] + self._mask[:turned]
            self._hand_on(data)
        elif not self._dropping:
            super().data_received(piece.tobytes())

    def _hand_on(self, data: bytes) -> None:
        """Give the application a part of a message, and how much of the message is still to come; as uvicorn does."""
        if self.close_sent or self._answer:
            return
        event: Any = {"type": "websocket.receive", "bytes": data, "to_come": self._frame_left}
        self.queue.put_nowait(event)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _enter(self, head: Head, now: float) -> None:
        """Begin a frame, unless it breaks a rule."""
        self._frame_left = head.size + head.length
        if not self._refused and (error := self._frames.refusal(head, now)) is not None:
            self._refuse(error)
        # A page that has been refused may answer our close, or leave.
        self._dropping = self._refused and (head.opcode != Opcode.CLOSE or not head.is_sound_control)
        self._mask = None
        if head.opcode == Opcode.CLOSE:
            # `websockets` calls one between two fragments a protocol error; RFC 6455, 5.4 allows it.
            self.conn.current_size = None
        elif head.opcode == Opcode.BINARY and head.fin and not self._dropping:
            self._mask = self._unparsed[head.size - 4 : head.size].tobytes()
            self._unparsed = self._unparsed[head.size :]
            self._frame_left = head.length

    def _refuse(self, error: UploadError) -> None:
        """Have the application tell the page: `websockets` and uvicorn would close at once, without a word of it."""
        self._refused = True
        event: Any = {"type": "websocket.refused", "error": error}
        self.queue.put_nowait(event)

    def send_receive_event_to_app(self) -> None:
        """Take a message; uvicorn logs a traceback for a text that is no UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._refuse(UnexpectedMessage("A text message must be UTF-8"))
            return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping. To a page that reads nothing no answer goes: uvicorn would keep them all."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))

    def handle_parser_exception(self) -> None:
        """Tell of a close of ours without a reason; uvicorn gives one, as for a close frame of the page."""
        code = self.conn.close_sent.code if self.conn.close_sent is not None else _PROTOCOL_ERROR
        self.queue.put_nowait({"type": "websocket.disconnect", "code": int(code)})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    def handle_close(self, event: Frame) -> None:
        """Answer a close frame once the application has ended.

        uvicorn answers at once: a page that waits for the answer, and then asks, would find its upload not cancelled.
        """
        closing = self.conn.close_rcvd
        if self.close_sent or closing is None or self.transport.is_closing():
            super().handle_close(event)
            return
        gone: Any = {"type": "websocket.disconnect", "code": int(closing.code), "reason": closing.reason}
        self.queue.put_nowait(gone)
        self.stop_keepalive()
        self._answer = b"".join(self.conn.data_to_send())
        self._answering = self.loop.call_later(_ANSWER_SECONDS, self._answer_close)

    def _answer_close(self) -> None:
        """Answer the page's close frame, unless that is done, or it sent none."""
        if self._answer and not self.transport.is_closing():
            self.transport.write(self._answer)
            self.transport.close()
        self._answer = b""

    def eof_received(self) -> None:
        """A page that will send nothing more gets its answer now: the transport closes itself."""
        self._answer_close()

    def shutdown(self) -> None:
        """uvicorn would send a close of its own behind our answer."""
        if self._answer or self.transport.is_closing():
            # Answered already: uvicorn's own close would be an error, and end the shutdown of all.
            self._answer_close()
        else:
            super().shutdown()

    # To and from the application -------------------------------------------------------------------------------------

    async def send(self, message: ASGISendEvent) -> None:
        """Send; what the page sent before the socket was accepted, or after our close, is parsed from now on.

        uvicorn takes a handshake that was answered with a plain HTTP answer for one without any, and logs an error.
        """
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True
        if self._unparsed and self._turn is None and message["type"] != "websocket.send":
            self._go_on()

    async def receive(self) -> ASGIReceiveEvent:
        """uvicorn reads on as soon as a message is taken; while memory is short that waits for the next call."""
        if self.queue.empty():
            self._read_on()
        message = await self.queue.get()
        if self.queue.empty() and not self._is_crowded():
            self._read_on()
        return message

    def _is_crowded(self) -> bool:
        return self._memory is not None and self._memory.is_crowded()

    def _read_on_later(self) -> None:
        """Read again once there is memory, unless a message waits: then that is for ``receive``."""

        async def wait(memory: Memory) -> None:
            await memory.uncrowded()
            self._gate = None
            if self.queue.empty():
                self._read_on()

        if self._gate is None and self._memory is not None:
            self._gate = self.loop.create_task(wait(self._memory))

    def _read_on(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if self._turn is None and not self._unparsed and self._may_parse():
                if not self.transport.is_closing():
                    self.transport.resume_reading()
            elif self._turn is None:
                # In a turn of its own: an application that waits for nothing else would take all in one.
                self._turn = self.loop.call_soon(self._go_on)

    def keepalive_timeout(self) -> None:
        """A page whose pong waits behind its bytes, or behind our own back-pressure, is not dead; a silent one is cut.

        uvicorn closes the transport and thereby waits for a page that reads no more.
        """
        if self.read_paused or self._unparsed or self._heard_at > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        """After the application has ended, a page that does not read or answer the close is cut off soon."""
        served = self.app

        async def answering(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await served(scope, receive, send)
            finally:
                self._answer_close()

        self.app = answering
        try:
            await super().run_asgi()
        finally:
            # Else the socket and what it holds would be a cycle, and wait for the collector.
            self.app = served
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)


def _refused_handshake(status: int, text: str) -> Response:
    """Return the answer to a handshake that is none, or that the application failed before."""
    ours = status == HTTPStatus.INTERNAL_SERVER_ERROR
    code, reason = (Code.INTERNAL, "INTERNAL") if ours else (Code.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    body = status_body(status_of(code, reason, text.partition("\n")[0][:_MOST_TEXT]))
    extra = [(b"connection", b"close"), (b"sec-websocket-version", b"13")]
    headers = [(name.decode(), value.decode()) for name, value in whole(body, JSON, extra)]
    return Response(int(status), HTTPStatus(status).phrase, Headers(headers), body)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
