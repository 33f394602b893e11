"""The network between a client and a server: slow if need be, and the server behind it can be exchanged for another."""

from __future__ import annotations

import asyncio
from typing import Self

_READ_BYTES = 64 * 1024


class Network:
    """A TCP proxy on loopback to ``port``. What clients send passes at ``bytes_per_second``; 0: as fast as it can."""

    def __init__(self, port: int, bytes_per_second: int = 0) -> None:
        self.backend = port
        self.bytes_per_second = bytes_per_second
        # Bytes that clients have sent through it.
        self.sent = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients find the server."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            far, to_far = await asyncio.open_connection("127.0.0.1", self.backend)
            await self._join(near, to_near, far, to_far)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            to_near.transport.abort()

    async def _join(
        self,
        near: asyncio.StreamReader,
        to_near: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        to_far: asyncio.StreamWriter,
    ) -> None:
        """Carry both ways until either side has left."""
        ways = {asyncio.create_task(self._send(near, to_far)), asyncio.create_task(_receive(far, to_near))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_far.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _send(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_READ_BYTES):
            sink.write(data)
            await sink.drain()
            self.sent += len(data)
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)


async def _receive(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_READ_BYTES):
        sink.write(data)
        await sink.drain()
