"""Decides the course of one watch: opening, bookmark, live, behind again, end.

Must not know which other watchers there are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from upload_server.domain.errors import ShuttingDown
from upload_server.domain.tokens import ResumeToken
from upload_server.store.protocol import Store
from upload_server.store.values import Change, Changes
from upload_server.watch.events import Bookmarked, Changed, Outlet, Progressed, WatchEvent, WatchRequest, key_of
from upload_server.watch.turns import LoopTurns
from upload_server.watch.watcher import Watcher

# Rows read at once.
PAGE = 500
# Rows that all streams together may have read and not sent; beyond it each reads a few at a time, since thousands of
# watchers that do not read would each hold a page.
_UNSENT = 20_000
_FEW = 16
# Ends that are remembered; progress comes late by one commit at most.
_ENDS_KEPT = 10_000


@dataclass(slots=True)
class Shared:
    """What all streams of one hub share."""

    store: Store
    # Seconds of silence after which a stream sends a bookmark.
    bookmark_interval: float
    # The hub has published every change up to this one.
    published: int
    # Why streams have to end now: the server drains, or is cut off.
    closing: type[ShuttingDown] | None = None
    turns: LoopTurns = field(default_factory=LoopTurns)
    # Rows that streams have read, or are about to, and not sent.
    unsent: int = 0
    # Targets whose end a stream has sent. A page may hold an end before the loop hears of its commit, and of progress
    # that was in the same one: no progress may come after it.
    ended: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def note_end(self, key: str) -> None:
        """Remember that a stream sends the end of ``key``."""
        self.ended[key] = None
        if len(self.ended) > _ENDS_KEPT:
            self.ended.popitem(last=False)

    def changed(self, change: Change) -> Changed:
        """Return ``change`` with its token."""
        record = change.record
        return Changed(change, self.token(change.no), key_of(record), record.status.final)

    def token(self, no: int) -> str:
        """Return the token that resumes after change ``no``."""
        return ResumeToken(self.store.incarnation, no).encode()


class Stream:
    """The course of one watch: opening, bookmark, live, behind again, end."""

    def __init__(
        self,
        shared: Shared,
        joined: AbstractContextManager[Watcher],
        request: WatchRequest,
        sees: str | None,
        outlet: Outlet | None,
    ) -> None:
        """``joined``: as long as it is entered, the hub offers changes to the watcher that it gives."""
        self._shared = shared
        self._joined = joined
        self._request = request
        self._sees = sees
        self._outlet = outlet
        self._cursor = 0
        # The server could not honour the token asked for.
        self._resynced = False
        # Named targets whose final state is still to be sent; only for until_final.
        self._awaited: set[str] = set()
        # When it last sent something, and when progress last ticked; the loop's time.
        self._sent_at = self._ticked_at = 0.0

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """Yield the whole course; raises as ``WatchHub.watch``.

        One generator from the hub to the door, and one name for whatever it yields: while a thousand streams rest, none
        of them keeps what it has sent.
        """
        if self._shared.closing is not None:
            raise self._shared.closing
        event: WatchEvent | None
        # Joined before the first read: the hub offers what is committed after that read's snapshot, so nothing falls
        # between the two.
        with self._joined as watcher:
            skip_final_upto = self._open(await self._shared.store.check_targets(self._request.targets, self._sees))
            if self._over:
                return
            async for event in self._catch_up(watcher, skip_final_upto):
                yield event
            event = Bookmarked(self._shared.token(self._cursor), self._resynced)
            yield event
            self._sent_at = self._ticked_at = asyncio.get_running_loop().time()
            while not self._over:
                self._check(watcher)
                if watcher.behind:
                    async for event in self._catch_up(watcher):
                        yield event
                    # It may have fallen behind again while the last of them was sent.
                    continue
                event = self._next(watcher)
                if event is None:
                    await watcher.rest(self._due(watcher), partial(self._send, watcher))
                else:
                    yield event
                    if watcher.has_more:
                        await self._shared.turns.wait()

    def _check(self, watcher: Watcher) -> None:
        """Raise why the stream has to end, if it has to."""
        if self._shared.closing is not None:
            raise self._shared.closing
        if watcher.lost is not None:
            raise watcher.lost

    @property
    def _over(self) -> bool:
        return self._request.until_final and not self._awaited

    def _open(self, opening: Changes) -> int:
        """Set the cursor and what is awaited; returns up to which change the stream leaves out final states."""
        token = self._request.resume
        if token is not None:
            known = opening.origin <= token.no <= opening.last_change
            self._resynced = token.incarnation != self._shared.store.incarnation or not known
            self._cursor = 0 if self._resynced else token.no
        if self._request.until_final:
            self._awaited = {
                key_of(c.record) for c in opening.changes if not c.record.status.final or c.no > self._cursor
            }
        fresh = token is None or self._resynced
        return opening.last_change if self._request.targets.all and fresh else 0

    async def _catch_up(self, watcher: Watcher, skip_final_upto: int = 0) -> AsyncGenerator[Changed, None]:
        """Read pages from the cursor on until the store has no more, then be live."""
        watcher.begin_to_catch_up()
        shared, complete = self._shared, False
        while not complete:
            held = PAGE if shared.unsent < _UNSENT else _FEW
            shared.unsent += held
            try:
                page = await shared.store.read_changes(
                    self._request.targets, self._sees, self._cursor, held, skip_final_upto
                )
                shared.unsent -= held - len(page.changes)
                held = len(page.changes)
                for change in page.changes:
                    await shared.turns.wait()
                    self._check(watcher)
                    yield self._note_sent(watcher, shared.changed(change))
            finally:
                shared.unsent -= held
            complete = page.complete
            if complete:
                self._cursor = page.last_change
        self._sent_at = asyncio.get_running_loop().time()

    def _send(self, watcher: Watcher) -> bool:
        """Send one event while the stream rests, if its outlet is free; returns whether it may rest on.

        To wake a task, a generator and a door for each of a thousand streams would cost more than their writes.
        """
        outlet = self._outlet
        if outlet is None or not outlet.free or self._shared.closing or watcher.lost or watcher.behind:
            return False
        event = self._next(watcher)
        if event is not None:
            outlet.send(event)
        if self._over:
            return False
        if watcher.has_more or watcher.ticked:
            watcher.wake()
        else:
            watcher.stay(self._due(watcher))
        return True

    def _next(self, watcher: Watcher) -> WatchEvent | None:
        """Return what to send now. Changes go first: progress that never ends must not hold up a cancel."""
        now = asyncio.get_running_loop().time()
        event = self._next_change(watcher) or self._next_progress(watcher, now) or self._next_bookmark(now)
        if event is not None:
            self._sent_at = now
        return event

    def _next_change(self, watcher: Watcher) -> Changed | None:
        while (changed := watcher.take()) is not None:
            # Else the stream has sent it from a page meanwhile.
            if changed.change.no > self._cursor:
                return self._note_sent(watcher, changed)
        return None

    def _note_sent(self, watcher: Watcher, changed: Changed) -> Changed:
        self._cursor = changed.change.no
        if changed.final:
            self._awaited.discard(changed.key)
            if watcher.wants_progress:
                # A page can be ahead of the hub: no progress after the end.
                watcher.forget_progress(changed.key)
                self._shared.note_end(changed.key)
        return changed

    def _next_progress(self, watcher: Watcher, now: float) -> Progressed | None:
        if not watcher.ticked:
            if not watcher.progress or now - self._ticked_at < self._request.progress_interval:
                return None
            self._ticked_at = now
            watcher.tick()
        file_id, bytes_received = watcher.ticked.popitem()
        return Progressed(file_id, bytes_received, self._shared.token(self._cursor))

    def _next_bookmark(self, now: float) -> Bookmarked | None:
        if now - self._sent_at < self._shared.bookmark_interval:
            return None
        self._cursor = max(self._cursor, self._shared.published)
        return Bookmarked(self._shared.token(self._cursor))

    def _due(self, watcher: Watcher) -> float:
        """Return when there will be something to send even if nothing happens."""
        due = self._sent_at + self._shared.bookmark_interval
        return min(due, self._ticked_at + self._request.progress_interval) if watcher.progress else due
