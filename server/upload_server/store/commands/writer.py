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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from upload_server.domain.errors import UploadError
from upload_server.domain.steps import STEPS, Steps
from upload_server.store.commands.write_queue import WriteQueue
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.options import StoreOptions
from upload_server.store.values import Commit, Heard, Listener, Result

T = TypeVar("T")
_log = logging.getLogger(__name__)

# Less is no wait.
_SHORTEST_TURN_SECONDS: Final = 0.0001


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a group: outcomes in its order. ``last_change`` is None when no watched row changed.

    ``commit_began`` says, by ``time.monotonic``, when all was written but not durable, of a group in one transaction.
    """

    outcomes: list[Outcome]
    last_change: int | None = None
    commit_began: float | None = None


class Committer(Protocol):
    """What a dialect brings to commit groups; its methods block, on the writer's thread."""

    @property
    def turn(self) -> AbstractContextManager[None]:
        """What a group is taken and committed in; entering it may block while other processes write."""

    def run(self, group: Sequence[Write[Any]]) -> Committed:
        """Commit the group; an outcome that is an exception changed nothing, unless it is ``OutcomeUnknown``."""

    def close(self) -> None:
        """Close its connection."""


class _Waiting(NamedTuple):
    """A write and the caller that waits for it."""

    write: Write[Any]
    answer: asyncio.Future[Any]
    # When it was asked for, by time.monotonic.
    asked_at: float
    heard: Heard | None
    # Of the call that waits, where it is traced.
    steps: Steps | None

    def give(self, outcome: Outcome) -> None:
        """Give the caller its answer, unless it has left."""
        if self.heard is not None:
            try:
                self.heard(outcome)
            except Exception:  # noqa: BLE001 - a bug: the others of the group must not wait for ever
                _log.exception("what follows a write failed")
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class _Times(NamedTuple):
    """When the writer began to wait for its turn, had it, began the commit, and ended; by ``time.monotonic``."""

    came: float
    turn: float
    commit: float | None
    ended: float

    def note(self, waiting: _Waiting, steps: Steps) -> None:
        """Note what a write waited for."""
        kind = type(waiting.write).__name__
        steps.add("store.wait", waiting.asked_at, self.turn, kind)
        if self.turn - self.came > _SHORTEST_TURN_SECONDS:
            # Other processes wrote.
            steps.add("store.turn", max(waiting.asked_at, self.came), self.turn, kind)
        steps.add("store.write", self.turn, self.commit or self.ended, kind)
        if self.commit is not None:
            steps.add("store.commit", self.commit, self.ended, kind)


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
        # Writes that were asked for and have no outcome yet; rung after each group.
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write[T], *, alone: bool = False, heard: Heard | None = None) -> asyncio.Future[T]:
        """Have ``write`` committed and return its answer to come; a caller that gives up waiting does not stop it.

        ``alone``: it may be long, so it gets a transaction of its own, in turn with the groups of short ones.
        ``heard`` hears its outcome, also when the caller has given up.
        """
        waiting = _Waiting(write, self._loop.create_future(), time.monotonic(), heard, STEPS.get())
        try:
            self._queue.put(waiting, urgent=write.urgent, alone=alone)
            self._unanswered += 1
        except UploadError as refusal:
            waiting.give(refusal)
        return waiting.answer

    async def drain(self) -> None:
        """Wait until no write waits for its outcome."""
        while self._unanswered:
            self._answered.clear()
            await self._answered.wait()

    async def close(self) -> None:
        """Commit what is queued, checkpoint, close the connection, end the thread. Safe to call twice."""
        self._queue.close()
        await self._ended.wait()
        self._thread.join()

    def _main(self) -> None:
        try:
            while self._queue.wait():
                came = time.monotonic()
                # The group is taken once it is its turn: company comes meanwhile.
                with self._committer.turn:
                    turn = time.monotonic()
                    group = self._queue.take()
                    done = self._run(group)
                self._call_soon(self._deliver, group, done, _Times(came, turn, done.commit_began, time.monotonic()))
        finally:
            self._committer.close()
            self._call_soon(self._ended.set)

    def _run(self, group: Sequence[_Waiting]) -> Committed:
        try:
            return self._committer.run([waiting.write for waiting in group])
        except Exception as error:  # noqa: BLE001 - a bug: the callers must not wait for ever
            _log.exception("the writer failed")
            return Committed([error for _ in group])

    def _call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        # A closed loop means that the store was never closed: no caller waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _deliver(self, group: Sequence[_Waiting], done: Committed, times: _Times) -> None:
        now = time.monotonic()
        for waiting in group:
            if waiting.steps is not None:
                times.note(waiting, waiting.steps)
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
                waiting.give(outcome)
            self._unanswered -= len(group)
            self._answered.set()
