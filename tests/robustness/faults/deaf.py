"""A gRPC caller that takes of its answers what it likes: HTTP/2 by hand, with flow control in the test's hands."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from google.protobuf.message import Message

from robustness.faults.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    frame,
)

_INITIAL_WINDOW_SIZE = 4
_CANCEL = 8


class DeafCaller:
    """One connection on which each answer may have ``window`` bytes, until ``listen`` gives it more. ``async with``."""

    def __init__(self, port: int, window: int = 0) -> None:
        self._port = port
        self._window = window
        self._stream = -1
        # Frames of headers and bytes of data by stream: two frames of headers end an answer, one a refusal.
        self.headers: Counter[int] = Counter()
        self.data: Counter[int] = Counter()
        self.ended: set[int] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, self._window)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        # Of the whole connection: only the streams' own windows count.
        self._writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 2**30)))
        # Who has not acknowledged the server's settings may open few streams.
        await self._take_frame()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listening.cancel()
        self._writer.transport.abort()

    def call(self, method: str, request: Message, *, ends: bool = True) -> int:
        """Begin a call; returns its stream."""
        self._stream += 2
        body = request.SerializeToString()
        self._writer.write(
            frame(HEADERS, END_HEADERS, self._stream, call_headers(method))
            + frame(DATA, END_STREAM if ends else 0, self._stream, b"\x00" + struct.pack("!I", len(body)) + body)
        )
        return self._stream

    def listen(self, stream: int, more: int = 2**30) -> None:
        """Take ``more`` bytes of an answer."""
        self._writer.write(frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", more)))

    def reset(self, *streams: int) -> None:
        """Leave calls, all in one write."""
        self._writer.write(b"".join(frame(RST, 0, stream, struct.pack("!I", _CANCEL)) for stream in streams))

    async def wait_begun(self, *streams: int) -> None:
        """Wait until each of these calls has the head of its answer; it goes out with the first message."""
        await self._until(lambda: all(self.headers[stream] for stream in streams))

    async def wait_ended(self, *streams: int) -> None:
        """Wait until each of these calls has its status."""
        await self._until(lambda: self.ended.issuperset(streams))

    async def _until(self, what: Callable[[], bool]) -> None:
        while not what():
            if self._listening.done():
                raise AssertionError("the server has closed the connection")
            self._news.clear()
            await self._news.wait()

    async def _take_frame(self) -> None:
        head = await self._reader.readexactly(FRAME_HEAD_BYTES)
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind in {SETTINGS, PING} and not flags & ACK:
            self._writer.write(frame(kind, ACK, 0, body if kind == PING else b""))
        elif kind == HEADERS:
            self.headers[stream] += 1
        elif kind == DATA:
            self.data[stream] += len(body)
        if stream and (kind == RST or (kind in {HEADERS, DATA} and flags & END_STREAM)):
            self.ended.add(stream)
        self._news.set()

    async def _listen(self) -> None:
        try:
            while True:
                await self._take_frame()
        finally:
            self._news.set()
