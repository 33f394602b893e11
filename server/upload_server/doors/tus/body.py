"""Decides how a request's body is waited for together with all else that can happen to its upload.

Must not know what the bytes are for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Final, Self

from upload_server.doors.http.asgi import Receive

# Messages read before they are asked for; the server makes each at most some hundred KiB. Not reading is back-pressure.
_READ_AHEAD: Final = 2


class SenderGone(Exception):
    """The connection broke before the body was complete."""


class Body:
    """The bytes of one request in order, read by a task of its own, and a bell. ``async with`` it.

    Nothing is read before something is asked for: a client that waits for "100 Continue" then keeps its bytes.
    """

    def __init__(self, receive: Receive, *, expected: bool) -> None:
        """``expected``: whether the request has a body at all."""
        self._receive = receive
        self._expected = expected
        self._waiting: deque[bytes] = deque()
        self._bell = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._over = asyncio.Event()
        self._gone = False
        self._discarding = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})

    @property
    def unread(self) -> bool:
        """Whether the client may still be sending."""
        return self._expected and not self._over.is_set()

    @property
    def ended(self) -> bool:
        """Whether every byte came and was taken; raises ``SenderGone`` when that can no longer be."""
        if self._waiting or not self._over.is_set():
            return False
        if self._gone:
            raise SenderGone
        return True

    def take(self) -> bytes | None:
        """Take the next bytes, if there are any."""
        self._start()
        if not self._waiting:
            return None
        data = self._waiting.popleft()
        self._room.set()
        return data

    def ring(self) -> None:
        """Wake who waits in ``heard``."""
        self._bell.set()

    async def heard(self, deadline: float) -> None:
        """Wait until bytes or the end have come, or somebody rang, or the loop's time is ``deadline``."""
        if not self._waiting:
            timer = asyncio.get_running_loop().call_at(deadline, self._bell.set)
            try:
                await self._bell.wait()
            finally:
                timer.cancel()
        self._bell.clear()

    async def discard(self, seconds: float) -> None:
        """Read on for so long and forget it, so that a client that sends before it listens hears its answer."""
        self._discarding = True
        self._waiting.clear()
        self._room.set()
        self._start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def _start(self) -> None:
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while not self._over.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = True
            elif data := message.get("body", b""):
                self._waiting.append(bytes(data))
            if self._gone or not message.get("more_body", False):
                self._over.set()
            self._bell.set()
            if self._discarding:
                self._waiting.clear()
            elif len(self._waiting) >= _READ_AHEAD:
                self._room.clear()
                await self._room.wait()
            # A body made of nothing must not hold the loop.
            await asyncio.sleep(0)
