"""Decides how a handler waits for a sender's next message and, at the same time, for whatever else concerns it.

Must not know what the messages mean. A timeout around a read leaks in grpcio, and a handler inside a read hears nothing
else; so one task reads ahead, by a message or two, and everything else rings the same bell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

import grpc

from upload_server.ingest import Memory

M = TypeVar("M")

_READ_AHEAD = 2
# Read on before a refusal: enough for what is under way, little for a caller that waits for the answer.
_REFUSED_SECONDS = 0.1


class Inbox(Generic[M]):
    """The messages of one sender, and a bell. ``async with`` it: the reading task ends with the block."""

    def __init__(self, read: Callable[[], Awaitable[M]], memory: Memory, size_of: Callable[[M], int]) -> None:
        """``read`` gives the next message, or grpc.aio.EOF for ever.

        ``size_of`` says what a message takes of ``memory``; when that is short, nothing is read ahead.
        """
        self._read_next = read
        self._memory = memory
        self._size_of = size_of
        self._waiting: deque[M] = deque()
        self._bell = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False
        self._discarding = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Inbox[M]:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._reader is not None  # noqa: S101 - set on entry
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._forget()

    @property
    def ended(self) -> bool:
        """Whether everything was taken and no more will come: done, or gone, which grpcio cannot tell apart."""
        return self._ended and not self._waiting

    def ring(self) -> None:
        """Wake the handler."""
        self._bell.set()

    async def heard(self) -> None:
        """Wait until the bell was rung, by a message or anybody."""
        if not self._waiting:
            self._room.set()
            await self._bell.wait()
        self._bell.clear()

    def take(self) -> M | None:
        """Take the next message if there is one."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._memory.hold(-self._size_of(message))
        if not self._memory.is_crowded():
            self._room.set()
        return message

    async def discard(self, seconds: float = _REFUSED_SECONDS) -> None:
        """Take in and forget what still comes, until the sender ends or for ``seconds``."""
        self._discarding = True
        self._forget()
        self._room.set()
        try:
            async with asyncio.timeout(seconds):
                while not self._ended:
                    await self._bell.wait()
                    self._bell.clear()
        except TimeoutError:
            pass

    def _forget(self) -> None:
        while self.take() is not None:
            pass

    async def _read(self) -> None:
        try:
            while await self._read_one():
                if len(self._waiting) >= _READ_AHEAD or (self._waiting and self._memory.is_crowded()):
                    self._room.clear()
                    await self._room.wait()
                if not self._discarding:
                    await self._memory.uncrowded()
        finally:
            self._ended = True
            self._bell.set()

    async def _read_one(self) -> bool:
        # A frame of its own, and not grpcio's iterator: while they wait for the next message both would keep the last
        # one alive, half a gigabyte in a thousand streams.
        message = await self._read_next()
        if message is grpc.aio.EOF:
            return False
        if not self._discarding:
            self._waiting.append(message)
            self._memory.hold(self._size_of(message))
            self._bell.set()
        return True
