"""Decides the course of one watch: opening, bookmark, live, behind again, end.

Must not know who else watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Protocol

from upload_server.domain.errors import ShuttingDown
from upload_server.store.protocol import Change, Changes, Store
from upload_server.watch.events import Bookmarked, Changed, Progressed, WatchEvent, WatchRequest, key_of
from upload_server.watch.watcher import Watcher

# Rows read at once.
PAGE = 500


class Hub(Protocol):
    """What a stream asks of its hub."""

    @property
    def store(self) -> Store:
        """The store that pages are read from."""

    @property
    def published(self) -> int:
        """Everything up to this change was handed out."""

    @property
    def closing(self) -> bool:
        """Whether streams have to end."""

    @property
    def bookmark_interval(self) -> float:
        """Seconds of silence after which a bookmark is due."""

    def told_end(self, key: str) -> None:
        """Take note that a stream tells the end of ``key``: no progress may come after it."""

    async def turn(self) -> None:
        """Wait until a stream may go on: calls come in between."""

    def joined(self, request: WatchRequest) -> AbstractContextManager[Watcher]:
        """Hand changes to a watcher, as long as the block runs."""

    def changed(self, change: Change) -> Changed:
        """Return ``change`` with its token."""

    def token(self, no: int) -> str:
        """Return the token that resumes after change ``no``."""


class Stream:
    """The course of one watch: opening, bookmark, live, behind again, end."""

    def __init__(self, hub: Hub, request: WatchRequest, owner: str) -> None:
        self._hub = hub
        self._request = request
        self._owner = owner
        self._cursor = 0
        # The token asked for could not be honoured.
        self._resynced = False
        # Named targets whose final state is still to be sent; only for until_final.
        self._awaited: set[str] = set()
        # When something was last said, and when progress last ticked; the loop's time.
        self._spoke = self._progressed = 0.0

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """Yield the whole course; raises as ``WatchHub.watch``.

        One generator from the hub to the door, and one name for whatever it yields: while a thousand streams rest, none
        of them keeps what it has sent.
        """
        if self._hub.closing:
            raise ShuttingDown
        event: WatchEvent | None
        # Joined before the first read: what is committed after that read's snapshot is handed over, so nothing falls
        # between the two.
        with self._hub.joined(self._request) as watcher:
            skip_final_upto = self._open(await self._hub.store.check_targets(self._request.targets, self._owner))
            if self._over:
                return
            async for event in self._catch_up(watcher, skip_final_upto):
                yield event
            event = Bookmarked(self._hub.token(self._cursor), self._resynced)
            yield event
            self._spoke = self._progressed = asyncio.get_running_loop().time()
            while not self._over:
                if self._hub.closing:
                    raise ShuttingDown
                if watcher.behind:
                    async for event in self._catch_up(watcher):
                        yield event
                    # It may have fallen behind again while the last of them was sent.
                    continue
                event = self._next(watcher)
                if event is None:
                    await watcher.rest(self._due(watcher))
                else:
                    yield event
                    if watcher.has_more:
                        await self._hub.turn()

    @property
    def _over(self) -> bool:
        return self._request.until_final and not self._awaited

    def _open(self, opening: Changes) -> int:
        """Set the cursor and what is awaited; returns up to which change final states are left out."""
        token = self._request.resume
        if token is not None:
            self._resynced = token.store_id != self._hub.store.store_id or token.no > opening.last_change
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
        complete = False
        while not complete:
            page = await self._hub.store.read_changes(
                self._request.targets, self._owner, self._cursor, PAGE, skip_final_upto
            )
            for change in page.changes:
                await self._hub.turn()
                if self._hub.closing:
                    raise ShuttingDown
                yield self._told(watcher, self._hub.changed(change))
            complete = page.complete
            if complete:
                self._cursor = page.last_change
        self._spoke = asyncio.get_running_loop().time()

    def _next(self, watcher: Watcher) -> WatchEvent | None:
        """Return what is to be sent now. Changes go first: progress that never ends must not hold up a cancel."""
        now = asyncio.get_running_loop().time()
        event = self._next_change(watcher) or self._next_progress(watcher, now) or self._next_bookmark(now)
        if event is not None:
            self._spoke = now
        return event

    def _next_change(self, watcher: Watcher) -> Changed | None:
        while (changed := watcher.take()) is not None:
            # Else a page has covered it meanwhile.
            if changed.change.no > self._cursor:
                return self._told(watcher, changed)
        return None

    def _told(self, watcher: Watcher, changed: Changed) -> Changed:
        self._cursor = changed.change.no
        if changed.final:
            self._awaited.discard(changed.key)
            # A page can be ahead of the tail: no progress after the end.
            watcher.settle(changed.key)
            if watcher.wants_progress:
                self._hub.told_end(changed.key)
        return changed

    def _next_progress(self, watcher: Watcher, now: float) -> Progressed | None:
        if not watcher.ticked:
            if not watcher.progress or now - self._progressed < self._request.progress_interval:
                return None
            self._progressed = now
            watcher.tick()
        file_id, bytes_received = watcher.ticked.popitem()
        return Progressed(file_id, bytes_received, self._hub.token(self._cursor))

    def _next_bookmark(self, now: float) -> Bookmarked | None:
        if now - self._spoke < self._hub.bookmark_interval:
            return None
        self._cursor = max(self._cursor, self._hub.published)
        return Bookmarked(self._hub.token(self._cursor))

    def _due(self, watcher: Watcher) -> float:
        """Return when there will be something to say even if nothing happens."""
        due = self._spoke + self._hub.bookmark_interval
        return min(due, self._progressed + self._request.progress_interval) if watcher.progress else due
