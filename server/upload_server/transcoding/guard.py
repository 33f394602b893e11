"""Decides when a running call must end: the client left, its deadline passed, or streams are shut down.

Must not know what runs, nor how its end is told to the client.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from .asgi import Receive

T = TypeVar("T")

_log = logging.getLogger(__name__)
_MOST_REPEATS: Final = 8
"""A server whose `receive` keeps answering after the body's end cannot tell a disconnect."""


class Cause(Enum):
    """Why a call was ended from outside."""

    DISCONNECT = "disconnect"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"


class Guard(Generic[T]):
    """Runs one coroutine as a task and ends it when something outside says so."""

    def __init__(self, receive: Receive, deadline: float | None, watch_after: float) -> None:
        """`watch_after`: seconds; a call that is over before never pays for watching its client."""
        self.cause: Cause | None = None
        self._receive = receive
        self._deadline = deadline
        self._watch_after = watch_after
        self._task: asyncio.Task[T] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The finished task; one that was ended from outside may still be cleaning up (see `cause`)."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        task = self._task = loop.create_task(work)
        task.add_done_callback(self._wake_up)
        timers: list[asyncio.TimerHandle] = []
        if self._deadline is not None:
            timers.append(loop.call_later(self._deadline - time.monotonic(), self.end, Cause.DEADLINE))
        if self._watch_after > 0:
            timers.append(loop.call_later(self._watch_after, self._start_watching))
        else:
            self._start_watching()
        try:
            await self._wake
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            for timer in timers:
                timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
        return task

    def end(self, cause: Cause) -> None:
        """Cancels what runs, unless it has ended already."""
        task = self._task
        if self.cause is None and task is not None and not task.done():
            self.cause = cause
            task.cancel()
            self._wake_up()

    async def join(self) -> None:
        """Waits until what was ended has cleaned up, and logs what went wrong with that."""
        task = self._task
        if task is None or self.cause is None:
            return
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call that was ended failed to clean up", exc_info=error)

    def _wake_up(self, _task: object = None) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

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
