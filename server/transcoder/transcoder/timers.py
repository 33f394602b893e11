"""Decides how what takes too long is interrupted, at next to no cost for what does not.

Must not know what is timed.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_TICK: Final = 0.01
"""Seconds."""


class Timers:
    """Timers that are nearly always cancelled before they fire: those that begin within a tick share one of the loop's.

    What is still there when the tick is over gets a timer of its own, so none fires late.
    """

    def __init__(self) -> None:
        self._young: dict[Timer, None] = {}
        # When the tick that runs is over, by the loop's clock.
        self._tick_ends = 0.0

    def after(self, seconds: float, callback: Callable[[], None]) -> "Timer":
        """Has `callback` called in so many seconds, unless the timer is cancelled before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        timer = Timer(self._young, now + seconds, callback)
        if seconds <= _TICK:
            timer.wait_alone()
        else:
            self._young[timer] = None
            if now >= self._tick_ends:
                self._tick_ends = now + _TICK
                loop.call_later(_TICK, self._let_go)
        return timer

    def limit(self, seconds: float) -> "Limit":
        """A context manager that interrupts what the current task does, with TimeoutError."""
        return Limit(self, seconds)

    def _let_go(self) -> None:
        self._tick_ends = 0.0
        for timer in self._young:
            timer.wait_alone()
        self._young.clear()


class Timer:
    """One of them."""

    __slots__ = ("_callback", "_due", "_handle", "_young")

    def __init__(self, young: "dict[Timer, None]", due: float, callback: Callable[[], None]) -> None:
        self._young = young
        self._due = due
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Forgets the callback; also when it was called already."""
        if self._handle is None:
            self._young.pop(self, None)
        else:
            self._handle.cancel()

    def wait_alone(self) -> None:
        """Takes a timer of the loop."""
        self._handle = asyncio.get_running_loop().call_at(self._due, self._callback)


class Limit:
    """Interrupts the task that entered it, and tells that from any other cancellation."""

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_timer", "_timers")

    def __init__(self, timers: Timers, seconds: float) -> None:
        self._timers = timers
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._timers.after(self._seconds, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        del self._timer  # it knows this one: the two would be left to the collector of cycles
        # Cancelled by somebody else as well: then that counts.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def restart(self, seconds: float) -> None:
        """Takes another time, from now on."""
        if not self._expired:
            self._timer.cancel()
            self._timer = self._timers.after(seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
