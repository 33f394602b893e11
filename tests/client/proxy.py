"""A TCP proxy on loopback: its connections can be cut, and its server can be exchanged for another one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards to ``backend``; ``cut`` resets every connection."""

    def __init__(self, backend: int) -> None:
        self.backend = backend
        self.port = 0
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection, as a network does. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in self._writers:
            transport_socket = writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.backend)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, to_writer))
                group.create_task(_copy(to_reader, writer))
        finally:
            self._writers -= {writer, to_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxy_to(backend: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port."""
    proxy = Proxy(backend)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        server.close()
        proxy._cut()
