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
    """Timers that are nearly always cancelled before they ring: those that start within a tick share one of the loop's.

    A timer that outlives its tick takes one of the loop's for itself, so none rings late. A timer of the loop for each
    costs a tenth of a cheap call.
    """

    def __init__(self, tick: float = _TICK) -> None:
        """`tick`: seconds; longer than most of what is timed takes."""
        self.tick = tick
        # Those that started in this tick or the one before, and have not been cancelled.
        self.young: dict[Timer, None] = {}
        # When the running tick is over, by the loop's clock.
        self.tick_ends = 0.0

    def after(self, seconds: float, callback: Callable[[], None]) -> "Timer":
        """Has `callback` called in so many seconds, unless the timer is cancelled before."""
        timer = Timer(self, callback)
        timer.start(seconds)
        return timer

    def end_tick(self) -> None:
        """Gives a timer of the loop to each that has outlived its tick."""
        self.tick_ends = 0.0
        for timer in self.young:
            timer.wait_alone()
        self.young.clear()


class Timer:
    """Calls back once, unless it is cancelled before."""

    __slots__ = ("_callback", "_due", "_handle", "_timers")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self._callback = callback
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Counts from now on; the timer must not be running."""
        timers, loop = self._timers, asyncio.get_running_loop()
        now = loop.time()
        self._due = now + seconds
        if seconds <= timers.tick:
            self.wait_alone()
            return
        timers.young[self] = None
        if now >= timers.tick_ends:
            timers.tick_ends = now + timers.tick
            loop.call_later(timers.tick, timers.end_tick)

    def cancel(self) -> None:
        """Forgets the callback; also when it was called already."""
        if self._handle is None:
            self._timers.young.pop(self, None)
        else:
            self._handle.cancel()
            self._handle = None

    def wait_alone(self) -> None:
        """Takes a timer of the loop."""
        self._handle = asyncio.get_running_loop().call_at(self._due, self.ring)

    def ring(self) -> None:
        """Calls back."""
        self._handle = None
        self._callback()


class Limit(Timer):
    """A context manager that interrupts with TimeoutError what its task does in the block for too long.

    It tells that end from any other cancellation, and may be entered again once it was left.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task")

    def __init__(self, timers: Timers, seconds: float) -> None:
        # No callback: bound to this object, it would leave every limit to the collector of cycles.
        self._timers = timers
        self._seconds = seconds
        self._handle = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self.start(self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        # Somebody else may have cancelled the task as well: then that counts.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def restart(self, seconds: float) -> None:
        """Takes another time, from now on."""
        if not self._expired:
            self.cancel()
            self.start(seconds)

    def ring(self) -> None:
        """Interrupts the task."""
        self._handle = None
        self._expired = True
        self._task.cancel()
