"""Decides what uvicorn's WebSocket protocol does where its defaults do not fit: honest close codes, bounded reading.

Must not know the door. Every override names the fact about uvicorn 0.54 that makes it necessary; a regression test
watches each.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn._types import ASGIReceiveEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from upload_server.ingest import Memory

# Seconds between the end of a socket's application and the end of its connection, whatever the page reads or sends.
LINGER_SECONDS: Final = 5.0
_NO_CLOSE_FRAME: Final = 1006


class HonestWebSocketProtocol(WebSocketsSansIOProtocol):
    """Tells the application how the page went: its close frame's code, 1005 for one without, 1006 when none came.

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
        self._memory = memory
        # Waits for memory, to read on.
        self._gate: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn says 1005 here, which is also what it says of a close frame without a code. The first one counts."""
        if self._gate is not None:
            self._gate.cancel()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _NO_CLOSE_FRAME})
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note that the page lives, and read no further while memory is short."""
        self._heard_at = self.loop.time()
        super().data_received(data)
        if self._is_crowded() and not (self.read_paused or self.close_sent or self.transport.is_closing()):
            self.read_paused = True
            self.transport.pause_reading()
            self._read_on_later()

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
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

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
