"""Decides how calls that take too long are ended: one time for all of them, and one timer for all of them.

Must not know what they do. A timer for each call (``asyncio.timeout``) costs a tenth of a cheap call; that a call is
ended up to a tick late costs nothing.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class TimeLimit:
    """Ends what runs in ``with limit.watch()`` for longer than ``seconds``, with TimeoutError."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tick = min(1.0, seconds / 8)
        # In the order of their deadlines, since all have the same time.
        self._running: dict[_Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> _Watched:
        """Return a context manager around what the current task does; it may be entered again once it was left."""
        return _Watched(self)

    def add(self, watched: _Watched) -> float:
        """Take note of something that begins; returns its deadline."""
        loop = asyncio.get_running_loop()
        self._running[watched] = None
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._look)
        return loop.time() + self._seconds

    def remove(self, watched: _Watched) -> None:
        """Forget it."""
        self._running.pop(watched, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for watched in list(self._running):
            if watched.deadline > now:
                break
            self.remove(watched)
            watched.expire()
        self._timer = loop.call_later(self._tick, self._look) if self._running else None


class _Watched:
    """One thing with a limit. Ends the task that entered it, and tells that end from any other cancellation."""

    __slots__ = ("_cancelling", "_expired", "_limit", "_task", "deadline")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._expired = False
        self.deadline = 0.0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self.deadline = self._limit.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.remove(self)
        # Cancelled by the caller's leaving as well: then that counts.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """End it."""
        self._expired = True
        self._task.cancel()
