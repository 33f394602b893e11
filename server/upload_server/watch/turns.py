"""Decides how many streams may go on in one turn of the event loop, so that calls get theirs in between.

Must not know what the streams do.
"""

from __future__ import annotations

import asyncio
from collections import deque

# To write an event costs some 30 µs, and a cancel needs several turns: it must not wait for a thousand events in each.
_STREAMS = 8


class Turns:
    """Lets a few streams go on in each turn of the event loop, first come first served."""

    def __init__(self, streams: int = _STREAMS) -> None:
        self._streams = self._left = streams
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._counting = False

    async def wait(self) -> None:
        """Wait until the calling stream has its turn; mostly it has it at once."""
        if self._left and not self._waiting:
            self._take()
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def end_rest(self, rest: asyncio.Future[None]) -> None:
        """Set ``rest``, which its stream awaits, when the stream has its turn."""
        if self._left and not self._waiting:
            self._go_on(rest)
        else:
            self._waiting.append(rest)

    def _go_on(self, waiter: asyncio.Future[None]) -> None:
        # The client may have left its stream meanwhile.
        if not waiter.done():
            self._take()
            waiter.set_result(None)

    def _take(self) -> None:
        self._left -= 1
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._counting = False
        self._left = self._streams
        while self._left and self._waiting:
            self._go_on(self._waiting.popleft())
