"""Decides the course of one watch: opening, bookmark, live, behind again, end.

Must not know who else watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from upload_server.domain import Batch, File
from upload_server.errors import ShuttingDown
from upload_server.store import Change, Store
from upload_server.watch.events import Bookmarked, Changed, Progressed, WatchEvent, WatchRequest, key_of
from upload_server.watch.watcher import Watcher

# Rows read at once; also how many changes are handed out before other tasks get their turn.
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

    def changed(self, change: Change) -> Changed:
        """Return ``change`` with its token."""

    def token(self, no: int) -> str:
        """Return the token that resumes after change ``no``."""


class Stream:
    """The course of one watch: opening, bookmark, live, behind again, end."""

    def __init__(self, hub: Hub, watcher: Watcher, request: WatchRequest, owner: str) -> None:
        self._hub = hub
        self._watcher = watcher
        self._request = request
        self._owner = owner
        self._cursor = 0
        # Named targets whose final state is still to be sent; only for until_final.
        self._awaited: set[str] = set()

    async def events(self) -> AsyncIterator[WatchEvent]:
        """Yield the whole course; raises as ``WatchHub.watch``."""
        opening = await self._hub.store.check_targets(self._request.targets, self._owner)
        resynced = self._start(opening.last_change)
        skip_final_upto = opening.last_change if self._request.targets.all and not self._resumes(resynced) else 0
        if self._request.until_final:
            self._awaited = {
                key_of(c.record) for c in opening.changes if not c.record.status.final or c.no > self._cursor
            }
            if not self._awaited:
                return
        async for changed in self._catch_up(skip_final_upto):
            yield changed
        yield Bookmarked(self._hub.token(self._cursor), resynced)
        async for event in self._live():
            yield event

    def _start(self, last_change: int) -> bool:
        """Set the cursor; return whether the token could not be honoured."""
        token = self._request.resume
        if token is None:
            return False
        if token.store_id != self._hub.store.store_id or token.no > last_change:
            return True
        self._cursor = token.no
        return False

    def _resumes(self, resynced: bool) -> bool:
        return self._request.resume is not None and not resynced

    async def _catch_up(self, skip_final_upto: int = 0) -> AsyncIterator[Changed]:
        """Read pages from the cursor on until the store has no more, then be live."""
        self._watcher.behind = False
        complete = False
        while not complete:
            if self._hub.closing:
                raise ShuttingDown
            page = await self._hub.store.read_changes(
                self._request.targets, self._owner, self._cursor, PAGE, skip_final_upto
            )
            for change in page.changes:
                self._cursor = change.no
                self._note(change.record)
                yield self._hub.changed(change)
            complete = page.complete
            if complete:
                self._cursor = page.last_change
        self._watcher.drop_upto(self._cursor)

    async def _live(self) -> AsyncIterator[WatchEvent]:
        loop = asyncio.get_running_loop()
        spoke = progressed = loop.time()
        while not (self._request.until_final and not self._awaited):
            if self._hub.closing:
                raise ShuttingDown
            if self._watcher.behind:
                async for changed in self._catch_up():
                    yield changed
            elif self._watcher.pending:
                pending = self._take_pending()
                if pending is None:
                    continue
                yield pending
            elif self._progress_due(loop.time() - progressed):
                progressed = loop.time()
                for progress in self._take_progress():
                    yield progress
            elif loop.time() - spoke >= self._hub.bookmark_interval:
                self._cursor = max(self._cursor, self._hub.published)
                yield Bookmarked(self._hub.token(self._cursor))
            else:
                await self._rest(spoke, progressed)
                continue
            spoke = loop.time()

    def _take_pending(self) -> Changed | None:
        """Take the oldest change handed over; None if a page has covered it meanwhile."""
        changed = self._watcher.pending.pop(next(iter(self._watcher.pending)))
        if changed.change.no <= self._cursor:
            return None
        self._cursor = changed.change.no
        self._note(changed.change.record)
        return changed

    def _note(self, record: File | Batch) -> None:
        if record.status.final:
            self._awaited.discard(key_of(record))

    def _progress_due(self, elapsed: float) -> bool:
        return bool(self._watcher.progress) and elapsed >= self._request.progress_interval

    def _take_progress(self) -> Iterator[Progressed]:
        token = self._hub.token(self._cursor)
        while self._watcher.progress:
            file_id = next(iter(self._watcher.progress))
            yield Progressed(file_id, self._watcher.progress.pop(file_id), token)

    async def _rest(self, spoke: float, progressed: float) -> None:
        """Wait until there is something to send or say."""
        due = spoke + self._hub.bookmark_interval
        if self._watcher.progress:
            due = min(due, progressed + self._request.progress_interval)
        timer = asyncio.get_running_loop().call_at(due, self._watcher.wake.set)
        try:
            await self._watcher.wake.wait()
            self._watcher.wake.clear()
        finally:
            timer.cancel()
