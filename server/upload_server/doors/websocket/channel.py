"""Decides how a session waits for the page and all else at once, and how it talks to a page that may not read.

Must not know what is said.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

from upload_server.doors.http.asgi import Message, Receive, Send
from upload_server.doors.websocket.messages import RESTARTING, Gone

# Messages read before the session has asked for them: each is at most 1 MiB.
_READ_AHEAD: Final = 2
# Seconds that a page may take to read its last messages.
_LAST_WORDS_SECONDS: Final = 5.0
_NO_CLOSE_FRAME: Final = 1006

Incoming = bytes | str | Gone


class Inbox:
    """The page's messages in order, read by a task of its own, and a bell. ``async with`` it.

    The bell lets a stop, an idle timer or a finished commit be noticed while the page is silent. Not reading is the
    back-pressure.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waiting: deque[Incoming] = deque()
        self._bell = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})

    def ring(self) -> None:
        """Wake the session."""
        self._bell.set()

    async def heard(self) -> None:
        """Wait until there is a message or somebody rang."""
        if not self._waiting:
            await self._bell.wait()
        self._bell.clear()

    def take(self) -> Incoming | None:
        """Take the next message, if there is one; ``Gone`` is the last."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._room.set()
        return message

    async def _read(self) -> None:
        while True:
            message = _incoming(await self._receive())
            self._waiting.append(message)
            self._bell.set()
            if isinstance(message, Gone):
                return
            if len(self._waiting) >= _READ_AHEAD:
                self._room.clear()
                await self._room.wait()


def _incoming(message: Message) -> Incoming:
    if message["type"] == "websocket.receive":
        data: bytes | None = message.get("bytes")
        text: str | None = message.get("text")
        return data if data is not None else text or ""
    code: int = message.get("code", _NO_CLOSE_FRAME)
    # uvicorn gives the reason of every close frame that came, and none for the close of its own shutdown.
    by_server = code == RESTARTING and "reason" not in message
    return Gone(code, message.get("reason") or "", by_server)


class Outlet:
    """What goes to the page. A page that is gone is no error: what it does not hear it can read by ``GetFile``."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def accept(self) -> None:
        """Accept the handshake."""
        await self._send_if_there({"type": "websocket.accept"})

    async def say(self, message: dict[str, Any]) -> None:
        """Send one message; waits while the page does not read."""
        await self._send_if_there({"type": "websocket.send", "text": json.dumps(message)})

    async def leave(self, message: dict[str, Any], code: int, *before: dict[str, Any]) -> None:
        """Send the last messages and close; a page that does not read them within a bound is cut off."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for earlier in before:
                    await self.say(earlier)
                await self.say(message)
                await self._send_if_there({"type": "websocket.close", "code": code})
        except TimeoutError:
            pass

    async def _send_if_there(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            # OSError: gone. RuntimeError: uvicorn's word for "we have said close already", in its own shutdown.
            return
