"""Decides how the door reads from a page, and how it talks to a page that may not read.

Must not know what the messages mean.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from upload_server.domain.errors import SizeExceeded
from upload_server.domain.states import File
from upload_server.doors.http.asgi import Message, Receive, Send
from upload_server.doors.websocket.leaving import NO_CLOSE_FRAME, Gone
from upload_server.doors.websocket.messages import Refused

# Seconds that a page may take to read its last messages.
_LAST_WORDS_SECONDS: Final = 5.0


class Reader:
    """Gives a mailbox the page's messages; ``Gone`` or ``Refused`` is the last."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._file_id = ""
        self._received, self._size = 0, sys.maxsize

    def expect(self, file: File) -> None:
        """Refuse from now on a message that passes the file's size, before any part of it is handed on."""
        self._file_id, self._received, self._size = file.file_id, file.bytes_received, file.size_bytes

    async def read(self) -> bytes | str | Gone | Refused:
        """Wait for the next message, or part of one."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            data: bytes | None = message.get("bytes")
            text: str | None = message.get("text")
            return text or "" if data is None else self._taken(data, message.get("to_come", 0))
        if message["type"] == "websocket.refused":
            return Refused(message["error"])
        code: int = message.get("code", NO_CLOSE_FRAME)
        # Every close frame of the page has a reason here, be it empty; a close of our own has none.
        by_server = code != NO_CLOSE_FRAME and "reason" not in message
        return Gone(code, message.get("reason") or "", by_server)

    def _taken(self, data: bytes, to_come: int) -> bytes | Refused:
        if to_come and self._received + len(data) + to_come > self._size:
            return Refused(SizeExceeded(self._file_id, self._received, self._size))
        self._received += len(data)
        return data


class Outlet:
    """The way to the page. A page that is gone is no error: by ``GetFile`` it can read what it did not hear."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def accept(self, subprotocol: str | None) -> None:
        """Accept the handshake."""
        await self._send_if_there({"type": "websocket.accept", "subprotocol": subprotocol})

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
