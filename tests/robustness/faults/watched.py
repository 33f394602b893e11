"""``python watched.py FILE serve …``: the server, with a 1 ms timer on its loop that notes its own lateness.

The longest turn of the event loop is what everybody else's cancel waits for. A thread that holds Python's lock makes
the timer late, too. ``FILE`` gets a line for each tick that came late: when (``time.monotonic``), and how late it was,
in seconds. Of lateness only as much counts as the process has used of processors meanwhile: what other processes took
from it is not its doing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Iterator
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.process import ServerProcess
from upload_server.__main__ import main

_TICK_SECONDS = 0.001
# Ticks that are less late than this are not noted.
_LATE_SECONDS = 0.002


@dataclass(frozen=True)
class Turn:
    """A turn of the loop that kept a timer waiting: when it ended (``time.monotonic``), and its length in seconds."""

    ended: float
    seconds: float


class WatchedServer(ServerProcess):
    """A server of this kind."""

    def __init__(self, data_dir: Path, options: list[str] | tuple[str, ...] = ()) -> None:
        self._turns = data_dir.with_name(f"{data_dir.name}.turns")
        self.program = (str(Path(__file__)), str(self._turns))
        super().__init__(data_dir, options)

    def turns(self, since: float = 0.0) -> Iterator[Turn]:
        """Yield the turns that were noted after a moment."""
        for line in self._turns.read_text().splitlines():
            ended, seconds = map(float, line.split())
            if ended > since:
                yield Turn(ended, seconds)

    def longest_turn(self, since: float = 0.0) -> float:
        """Return the length of the longest turn after a moment, in seconds; 0 when none was noted."""
        return max((turn.seconds for turn in self.turns(since)), default=0.0)


class _Watchdog:
    """Ticks on the loop of whatever an ``asyncio.Runner`` runs."""

    def __init__(self, path: str) -> None:
        self._notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._due = 0.0
        self._used = 0.0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due, self._used = time.monotonic() + _TICK_SECONDS, time.process_time()
        loop.call_later(_TICK_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        late = min(now - self._due, time.process_time() - self._used)
        if late > _LATE_SECONDS:
            os.write(self._notes, f"{now:.6f} {late:.6f}\n".encode())
        self.watch(loop)


def _install(path: str) -> None:
    run = asyncio.Runner.run

    def watched(self: asyncio.Runner, coro: Coroutine[Any, Any, Any], *, context: Context | None = None) -> Any:
        _Watchdog(path).watch(self.get_loop())
        return run(self, coro, context=context)

    asyncio.Runner.run = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    _install(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
