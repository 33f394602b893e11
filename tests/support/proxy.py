"""A TCP proxy that breaks what passes through it: late, slow, cut after k bytes, half-open, reset, swallowed.

The server behind it can be exchanged for another, or be away.

Faults are set on a direction (``up``: client to server, ``down``: server to client) and hold for connections that are
open and for those to come; counts of bytes are each connection's own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 64 * 1024
# How late what was held goes on.
_HELD_SECONDS = 0.01


@dataclass
class Direction:
    """What happens to the bytes of one direction."""

    # Seconds that every piece is late.
    delay: float = 0.0
    # Bytes a second; 0: as fast as they come.
    throttle: int = 0
    # The connection is cut after so many bytes, both ways: reset, or with ``politely`` closed.
    cut_after: int | None = None
    politely: bool = False
    # Bytes are taken and go nowhere; neither does the end.
    swallow: bool = False
    # Bytes go on once healed, as a kernel sends again what nobody has acknowledged; neither does the end until then.
    held: bool = False

    async def take_time(self, count: int) -> None:
        """Wait as long as so many bytes take."""
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.throttle:
            await asyncio.sleep(count / self.throttle)
        while self.held:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(_HELD_SECONDS)

    def heal(self) -> None:
        """Let everything pass."""
        self.delay, self.throttle, self.cut_after, self.swallow, self.held = 0.0, 0, None, False, False


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    # Bytes that were passed on.
    up: int = 0
    down: int = 0

    def reset(self) -> None:
        """RST to both."""
        for writer in (self.client, self.server):
            reset(writer)

    def lose_client(self) -> None:
        """RST to the client; the server is not told: half-open."""
        reset(self.client)

    def lose_server(self) -> None:
        """RST to the server; the client is not told."""
        reset(self.server)


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop a connection with RST."""
    found = writer.get_extra_info("socket")
    if found is not None and not writer.transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class FaultProxy:
    """Forwards connections to a port on loopback or a socket in a folder, as well as its two directions let it."""

    def __init__(self, backend: int | Path) -> None:
        self.backend = backend
        # Connections to come are reset.
        self.away = False
        self.port = 0
        self.up = Direction()
        self.down = Direction()
        self.links: set[Link] = set()
        # Connections that were made in all.
        self.accepted = 0
        # Bytes of clients that were passed on in all.
        self.sent = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # The loop that it runs on.
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def target(self) -> str:
        """Address for a gRPC channel."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base URL for an HTTP client."""
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Let everything pass from now on; what was cut stays cut."""
        self.up.heal()
        self.down.heal()

    def reset_all(self) -> None:
        """Reset every connection."""
        for link in list(self.links):
            link.reset()

    def go_away(self) -> None:
        """Reset every connection and those to come; called from a thread that is not the loop's."""
        self.away = True
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.reset_all)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self.away:
            reset(writer)
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:
            reset(writer)
            return
        link = Link(writer, to_server)
        self.links.add(link)
        pumps = [
            asyncio.create_task(self._pump(link, reader, to_server, up=True)),
            asyncio.create_task(self._pump(link, from_server, writer, up=False)),
        ]
        try:
            await asyncio.wait(pumps)
        finally:
            self.links.discard(link)
            for pump in pumps:
                pump.cancel()
            link.reset()
            await asyncio.gather(*pumps, link.client.wait_closed(), to_server.wait_closed(), return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.backend, Path):
            return await asyncio.open_unix_connection(self.backend)
        return await asyncio.open_connection("127.0.0.1", self.backend)

    async def _pump(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        direction = self.up if up else self.down
        try:
            while data := await reader.read(
                min(_CHUNK, max(direction.throttle // 10, 1)) if direction.throttle else _CHUNK
            ):
                await direction.take_time(len(data))
                if direction.swallow:
                    continue
                passed = link.up if up else link.down
                if direction.cut_after is not None and passed + len(data) >= direction.cut_after:
                    await self._cut(link, writer, data[: max(0, direction.cut_after - passed)], direction)
                    return
                writer.write(data)
                await writer.drain()
                if up:
                    link.up += len(data)
                    self.sent += len(data)
                else:
                    link.down += len(data)
            if not (direction.swallow or direction.held):
                writer.write_eof()
        except (ConnectionError, RuntimeError):
            # The other side is gone; it will be told when it looks.
            if not (direction.swallow or direction.held):
                link.reset()

    @staticmethod
    async def _cut(link: Link, writer: asyncio.StreamWriter, rest: bytes, direction: Direction) -> None:
        writer.write(rest)
        await writer.drain()
        if direction.politely:
            link.client.close()
            link.server.close()
        else:
            link.reset()

    async def close(self) -> None:
        """Reset what is open and wait for its end."""
        self.reset_all()
        tasks = list(self._tasks)
        await asyncio.wait({asyncio.gather(*tasks, return_exceptions=True)}, timeout=5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def fault_proxy(backend: int | Path, throttle: int = 0) -> AsyncIterator[FaultProxy]:
    """Run a proxy in front of ``backend`` on a free port; at first clients send at ``throttle`` bytes a second."""
    proxy = FaultProxy(backend)
    proxy.up.throttle = throttle
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        # What was accepted just now has its task with the next turn of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await proxy.close()


@contextmanager
def fault_proxy_beside(backend: int) -> Iterator[FaultProxy]:
    """Run a proxy on a thread of its own, for a test that blocks; its faults are set from the test's thread."""
    ready: Future[FaultProxy] = Future()
    over = threading.Event()

    async def run() -> None:
        async with fault_proxy(backend) as proxy:
            proxy.loop = asyncio.get_running_loop()
            ready.set_result(proxy)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield ready.result(10)
    finally:
        over.set()
        thread.join()
