"""Decides how calls on the event loop reach the writer's thread and how answers come back.

Must not know what is written, nor to which database. One thread runs every transaction; the answers of a whole group
come back in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from upload_server.store.commands.write_queue import WriteQueue
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Commit, Listener, Result

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a group: outcomes in its order. ``last_change`` is None when no watched row changed."""

    outcomes: list[Outcome]
    last_change: int | None = None


class Committer(Protocol):
    """What a dialect brings to commit groups; its methods block, on the writer's thread."""

    def run(self, group: Sequence[Write[Any]]) -> Committed:
        """Commit the group; an outcome that is an exception changed nothing, unless it is ``OutcomeUnknown``."""

    def close(self) -> None:
        """Close its connection."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A write and the caller that waits for it."""

    write: Write[Any]
    answer: asyncio.Future[Outcome]
    # When it was asked for, by time.monotonic.
    asked_at: float


class Writer:
    """Runs writes in groups on its own thread; made, called and closed on the event loop."""

    def __init__(self, committer: Committer, options: StoreOptions, last_change: int) -> None:
        """``last_change``: number of the last change that is committed."""
        # Called on the loop after each commit of a watched row.
        self.listener: Listener | None = None
        self.last_change = last_change
        self._committer = committer
        self._loop = asyncio.get_running_loop()
        self._queue: WriteQueue[_Waiting] = WriteQueue(options)
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, write: Write[T], *, alone: bool = False) -> T:
        """Have ``write`` committed and return its answer; a caller that gives up waiting does not stop it.

        ``alone``: it may be long, so it gets a transaction of its own, in turn with the groups of short ones.
        """
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._queue.put(_Waiting(write, answer, time.monotonic()), urgent=write.urgent, alone=alone)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        result: T = outcome
        return result

    async def close(self) -> None:
        """Commit what is queued, checkpoint, close the connection, end the thread. Safe to call twice."""
        self._queue.close()
        await self._ended.wait()
        self._thread.join()

    def _main(self) -> None:
        try:
            while group := self._queue.take():
                try:
                    done = self._committer.run([waiting.write for waiting in group])
                except Exception as error:  # noqa: BLE001 - a bug: the callers must not wait for ever
                    _log.exception("the writer failed")
                    done = Committed([error for _ in group])
                self._call_soon(self._deliver, group, done)
        finally:
            self._committer.close()
            self._call_soon(self._ended.set)

    def _call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        # A closed loop means that the store was never closed: no caller waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _deliver(self, group: Sequence[_Waiting], done: Committed) -> None:
        now = time.monotonic()
        # The writes that left something in the audit trail.
        commits = [
            Commit(outcome.audited, now - waiting.asked_at)
            for waiting, outcome in zip(group, done.outcomes, strict=True)
            if isinstance(outcome, Result) and outcome.audited.events
        ]
        try:
            if done.last_change is not None:
                self.last_change = max(self.last_change, done.last_change)
                if self.listener is not None:
                    self.listener(commits)
        finally:
            for waiting, outcome in zip(group, done.outcomes, strict=True):
                # Done already: its caller gave up waiting.
                if not waiting.answer.done():
                    waiting.answer.set_result(outcome)
