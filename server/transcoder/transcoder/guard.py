"""Decides when a running call must end: the client left, or its deadline passed.

Must not know what runs, nor how the client hears of its end.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, Final, TypeVar

from .asgi import Receive
from .timers import Timer, Timers

T = TypeVar("T")

Tell = Callable[["Cause"], Coroutine[Any, Any, None]]
"""Tells the client why its call was ended, if it is still there."""

_log = logging.getLogger(__name__)
_MOST_REPEATS: Final = 8
"""A server whose `receive` keeps answering after the body's end cannot tell a disconnect."""


class Cause(Enum):
    """Why a call was ended from outside."""

    DISCONNECT = "disconnect"
    DEADLINE = "deadline"


class EndedError(Exception):
    """The call was ended from outside; its client has been told."""


class SelfCancelledError(Exception):
    """What ran raised CancelledError, though nobody had cancelled it."""


class Guard:
    """Runs one call in the current task and interrupts it when something outside says so.

    A task of its own tells the client at once: what it interrupts may take its time to clean up.
    """

    # Most calls change none of these, so none pays for setting them.
    _at_deadline: asyncio.TimerHandle | None = None
    _before_watching: Timer | None = None
    _watcher: asyncio.Task[None] | None = None
    _teller: asyncio.Task[None] | None = None

    def __init__(
        self, timers: Timers, receive: Receive, tell: Tell, deadline: float | None, watch_after: float
    ) -> None:
        """`watch_after`: seconds; a call that is over before never pays for watching its client."""
        self._timers = timers
        self._receive = receive
        self._tell = tell
        self._deadline = deadline
        self._watch_after = watch_after
        # The task, while it can be interrupted.
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Awaitable[T]) -> T:
        """What `work` gives or raises; EndedError after its end if it was ended from outside."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        cancelling = task.cancelling()
        self._task = task
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            self._at_deadline = asyncio.get_running_loop().call_later(left, self.end, Cause.DEADLINE)
        if self._watch_after > 0:
            self._before_watching = Timer(self._timers, self._start_watching)
            self._before_watching.start(self._watch_after)
        else:
            self._start_watching()
        try:
            try:
                result = await work
            finally:
                self._stop(task)
        except asyncio.CancelledError as error:
            if task.cancelling() > cancelling:  # by the server
                raise
            await self._check(None)
            raise SelfCancelledError from error
        except Exception as error:
            await self._check(error)
            raise
        if self._teller is not None:
            await self._check(None)
        return result

    def end(self, cause: Cause) -> None:
        """Interrupts what runs, unless it has ended already."""
        task = self._task
        if self._teller is None and task is not None:
            self._teller = asyncio.get_running_loop().create_task(self._tell(cause))
            task.cancel()

    def _stop(self, task: asyncio.Task[Any]) -> None:
        """From here on nothing is interrupted."""
        self._task = None
        if self._at_deadline is not None:
            self._at_deadline.cancel()
        if self._before_watching is not None:
            self._before_watching.cancel()
            self._before_watching = None  # it knows this one: the two would be left to the collector of cycles
        if self._watcher is not None:
            self._watcher.cancel()
        if self._teller is not None:
            task.uncancel()

    async def _check(self, error: Exception | None) -> None:
        """Raises EndedError if the call was ended from outside; `error` is what its clean-up failed with."""
        if self._teller is None:
            return
        if error is not None:
            _log.error("a call that was ended failed to clean up", exc_info=error)
        await self._teller
        raise EndedError

    def _start_watching(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        repeats = 0
        while repeats < _MOST_REPEATS:
            try:
                message = await self._receive()
            except Exception:  # noqa: BLE001 - a server that cannot tell must not end the call
                _log.exception("receive failed: the client of this call is no longer watched")
                return
            if message["type"] == "http.disconnect":
                self.end(Cause.DISCONNECT)
                return
            if message.get("more_body", False):
                await asyncio.sleep(0)  # a body that nobody asked for, without end, must not hold the loop
            else:
                repeats += 1
