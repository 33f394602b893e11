"""Decides how many streams may go on in one turn of the event loop, so that calls get theirs in between.

Must not know what the streams do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# To write an event costs some 30 µs, and a cancel needs several turns: it must not wait for a thousand events in each.
_STREAMS = 8


class LoopTurns:
    """Lets a few streams go on in each turn of the event loop, first come first served."""

    def __init__(self) -> None:
        self._left = _STREAMS
        self._waiting: deque[Callable[[], None]] = deque()
        self._counting = False

    async def wait(self) -> None:
        """Wait until the calling stream has its turn; mostly it has it at once."""
        if self._left and not self._waiting:
            self._left -= 1
            self._count()
            return
        waiter = asyncio.get_running_loop().create_future()

        def go_on() -> None:
            # The client may have left its stream meanwhile.
            if not waiter.done():
                waiter.set_result(None)

        self.call(go_on)
        await waiter

    def call(self, go_on: Callable[[], None]) -> None:
        """Have ``go_on``, which must not raise, called when its stream has its turn: never at once."""
        self._waiting.append(go_on)
        self._count()

    def _count(self) -> None:
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._counting = False
        self._left = _STREAMS
        while self._left and self._waiting:
            self._left -= 1
            self._count()
            self._waiting.popleft()()
