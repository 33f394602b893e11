"""Decides how many bytes of long request bodies may be in memory at once, over all requests, and how fast they come.

Must not know how a body comes in. Whoever has no place is told so before its body is read.
"""

import asyncio
from typing import Final

SMALL_BYTES: Final = 64 * 1024
"""A body up to this length needs no place: such are the bodies of most calls, and they are bounded by their number."""

_READS: Final = 4
"""In one turn of the event loop; each may be of 256 KiB."""


class BodyBudget:
    """Counts the bytes that long bodies take."""

    def __init__(self, most: int = 64 * 1024 * 1024) -> None:
        self.most = most
        self._taken = 0
        self._reads = asyncio.Semaphore(_READS)

    async def turn(self) -> None:
        """Waits for a turn to read on in a long body: a few of them in each of the loop's, so that calls get theirs."""
        await self._reads.acquire()
        asyncio.get_running_loop().call_soon(self._reads.release)

    def take(self, count: int) -> bool:
        """Counts a body in, if there is room; a small one always has."""
        if count <= SMALL_BYTES:
            return True
        if self._taken + count > self.most:
            return False
        self._taken += count
        return True

    def give_back(self, count: int) -> None:
        """Counts a body out that was counted in."""
        if count > SMALL_BYTES:
            self._taken -= count
