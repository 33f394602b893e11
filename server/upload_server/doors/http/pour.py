"""Decides how a file gets past the event loop into an answer: threads move its bytes into the socket.

Must not know whose bytes they are, nor where they lie. A thread sends while the peer takes; it waits for a fast one,
milliseconds, and the event loop for a slow one. So no thread is held by a peer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

# In the scope of a request whose answer may come out of a file: how its door has that sent.
POUR: Final = "upload_server.pour"
# Does something in a thread.
InThread = Callable[..., Awaitable[int]]
# Moves bytes of a file into a socket that does not wait, given the socket's descriptor, the first byte and how many at
# most; returns how many. Raises OSError of the socket, ``EIO`` or an error of its own when they cannot be read.
Source = Callable[[int, int, int], int]
# Sends a part of a file, given its source, the first byte and how many, as the rest of an answer whose head is out;
# returns False, and the connection is broken, when the peer is gone. Raises what the source does when it cannot read.
Pour = Callable[[InThread, Source, int, int], Awaitable[bool]]

# Seconds that one thread sends before it looks to others, and a block of a slow object store.
_TURN_SECONDS: Final = 0.02
# Milliseconds that a thread waits for a peer.
_WAIT_MS: Final = 5
# Given to the kernel ahead of what the peer takes; a watch has much less.
_UNSENT_BYTES: Final = 1024 * 1024


def of_file(descriptor: int) -> Source:
    """Have the kernel move the bytes of a file of this machine."""
    return lambda sock, start, count: os.sendfile(sock, descriptor, start, count)


def of_blocks(first: bytes, take: Callable[[], bytes]) -> Source:
    """Move blocks of bytes, which come in order: no more than one of them is in memory."""
    rest = memoryview(first)

    def move(sock: int, _start: int, count: int) -> int:
        nonlocal rest
        if not rest:
            rest = memoryview(take())
        moved = os.write(sock, rest[:count])
        rest = rest[moved:]
        return moved

    return move


class Pouring:
    """One part of a file on its way to one peer. ``close`` it on the event loop."""

    def __init__(self, sock: socket.socket) -> None:
        # Its own descriptor: the transport may close the connection while a thread sends, and the next one gets the
        # same number.
        self._sock = socket.fromfd(sock.fileno(), sock.family, sock.type)
        self._stopped = False
        self._waiter: asyncio.Future[None] | None = None
        self._unsent = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    async def send(self, in_thread: InThread, source: Source, start: int, count: int) -> int:
        """Send bytes of a file; returns how many went out, fewer only when the peer is gone.

        Raises what the source does when they cannot be read.
        """
        left = count
        while left and not self._stopped:
            sending = asyncio.ensure_future(in_thread(self._send_some, source, start, left))
            try:
                sent = await asyncio.shield(sending)
            except asyncio.CancelledError:
                # Socket and source are closed behind this, and others may get their numbers.
                self._stopped = True
                await asyncio.wait([sending])
                raise
            start, left = start + sent, left - sent
            if not sent:
                await self._wait_writable()
        return count - left

    def _send_some(self, source: Source, start: int, count: int) -> int:
        """Send while the peer takes, for a turn, in a thread; returns how many bytes."""
        sent, ends_at = 0, time.monotonic() + _TURN_SECONDS
        waiting = select.poll()
        waiting.register(self._sock, select.POLLOUT)
        while sent < count and not self._stopped and (not sent or time.monotonic() < ends_at):
            try:
                moved = source(self._sock.fileno(), start + sent, count - sent)
            except BlockingIOError:
                if not waiting.poll(_WAIT_MS):
                    break
            except OSError as error:
                if error.errno == errno.EIO:
                    raise
                # The peer is gone, which the transport will see too.
                self._stopped = True
            else:
                if not moved:
                    raise OSError(errno.EIO, f"the file ends {count - sent} bytes too early")
                sent += moved
        return sent

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        loop.add_writer(self._sock.fileno(), self._wake)
        try:
            if not self._stopped:
                await waiter
        finally:
            loop.remove_writer(self._sock.fileno())
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """Send no more: the connection is lost."""
        self._stopped = True
        self._wake()

    def close(self) -> None:
        """Give the socket back; no thread is in it any more."""
        if not self._stopped:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._unsent)
        self._sock.close()
