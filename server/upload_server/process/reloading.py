"""Decides when files that an operator may replace are read again: when they have changed, on SIGHUP, and until they are
good.

Must not know what is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

EVERY_SECONDS: Final = 10.0

# Of each file the time of its change and its number; a file that is missing has none.
Stamp = Sequence[tuple[int, int]]


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """Return what tells other contents from these, whether somebody writes over a file or puts another in its place."""
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a link to other contents counts
    except OSError:
        return (0, 0)
    # Of its contents, and of who may read it: a key that others could read is refused until that is mended.
    return (found.st_ctime_ns, found.st_ino)


class Reloader:
    """Has files read again once they have changed, and then until they could be taken: their time may yet come."""

    def __init__(self, paths: Sequence[Path], load: Callable[[bool], Awaitable[bool]]) -> None:
        """``load`` says itself what it could not take, returns whether it could, and raises nothing.

        It hears whether it has failed before with the same files.
        """
        self._paths = paths
        self._failed = False
        self._load = load
        self._nudged = asyncio.Event()
        self._seen = stamp_of(paths)

    def nudge(self) -> None:
        """Have them read at once, changed or not."""
        self._nudged.set()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._nudged.wait()
            nudged = self._nudged.is_set()
            self._nudged.clear()
            # Before it reads: what changes meanwhile is read the next time.
            stamp = await asyncio.to_thread(stamp_of, self._paths)
            same = stamp == self._seen and not nudged
            if self._failed or not same:
                self._seen = stamp
                self._failed = not await self._load(same)
