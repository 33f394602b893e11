"""Decides when watchers are handed what was committed: one tail reads the store, however many watch.

Must not know what a stream makes of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import structlog

from upload_server.domain.errors import UploadError
from upload_server.domain.observer import Observer
from upload_server.domain.tokens import ResumeToken
from upload_server.store.protocol import Change, Store, Targets
from upload_server.watch.events import Changed, WatchEvent, WatchRequest, key_of
from upload_server.watch.everything import Everything, Reader
from upload_server.watch.interests import Interests
from upload_server.watch.named import Named
from upload_server.watch.stream import PAGE, Stream
from upload_server.watch.turns import Turns
from upload_server.watch.watcher import Watcher

log = structlog.get_logger(__name__)

# Changes that are kept for one watcher of named ids; who takes less reads them from the store, by their ids.
_KEPT_BY_NAME = 1000
# Ends that are kept in mind; progress comes late by one commit at most.
_ENDED_KEPT = 10_000
# After a failed read the tail waits this long; watchers keep their cursor, so nothing is lost.
_RETRY_SECONDS = 0.2
# Changes times watchers by name that are handed out before other tasks get their turn: some milliseconds.
_TURN = 2000


class WatchHub:
    """Hands every committed change to the watchers of its target."""

    def __init__(self, store: Store, *, history: int, bookmark_interval: float, observer: Observer) -> None:
        self._observer = observer
        self._store = store
        self._history = history
        self._bookmark_interval = bookmark_interval
        self._published = store.last_change
        self._committed = asyncio.Event()
        self._closing = False
        self._everything = Everything(history)
        self._interests = Interests()
        self._turns = Turns()
        # A page may tell an end before the loop hears of its commit, and of progress that was in the same one.
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def open_watches(self) -> int:
        """Streams that are open on this node."""
        return len(self._interests.watchers)

    def nudge(self) -> None:
        """Say that changes were committed; watchers of them are handed them soon."""
        self._committed.set()

    async def run(self) -> None:
        """Hand out changes as they are committed, until cancelled."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            try:
                await self._tail()
            except UploadError as error:
                log.warning("watch.tail_failed", reason=error.reason)
                await asyncio.sleep(_RETRY_SECONDS)
                self.nudge()

    def close(self) -> None:
        """End every stream with ``ShuttingDown``; it can be resumed on another node or later."""
        self._closing = True
        for watcher in self._interests.watchers:
            watcher.wake()

    def publish_progress(self, file_id: str, batch_id: str, bytes_received: int) -> None:
        """Hand on how far an open upload is; nothing if somebody was told the file's end already."""
        if not self._interests.watchers or file_id in self._ended:
            return
        for watcher in self._interests.of_file(file_id, batch_id):
            if watcher.wants_progress:
                watcher.offer_progress(file_id, bytes_received)

    def watch(self, request: WatchRequest, owner: str) -> AsyncGenerator[WatchEvent, None]:
        """Yield the opening state, one bookmark, then changes, as the contract's "Watching" says.

        Raises ``FileNotFound`` or ``BatchNotFound`` before anything, ``ShuttingDown`` when the server drains.
        """
        return Stream(self, request, owner).events()

    async def _tail(self) -> None:
        complete = False
        while not complete and self._interests.watchers:
            page = await self._store.read_changes(Targets(all=True), "", self._published, PAGE)
            handed = 0
            for change in page.changes:
                handed += self._publish(change)
                if handed >= _TURN:
                    handed = 0
                    await asyncio.sleep(0)
            complete = page.complete
            self._published = max(self._published, page.last_change if complete else page.changes[-1].no)
            await asyncio.sleep(0)

    def _publish(self, change: Change) -> int:
        """Hand a change to whom it concerns; returns to how many of those who named it."""
        changed = self.changed(change)
        self._everything.publish(changed)
        watchers = self._interests.by_name(change.record)
        for watcher in watchers:
            watcher.offer(changed)
        return len(watchers)

    # What a stream asks of its hub ------------------------------------------------------------------------------

    @contextmanager
    def joined(self, request: WatchRequest) -> Iterator[Watcher]:
        """Hand changes to a watcher, as long as the block runs."""
        if not self._interests.watchers:
            # The tail rests while nobody watches; what was committed meanwhile is the opening read's.
            self._published = max(self._published, self._store.last_change)
        with self._counted(request.targets, wants_progress=request.progress_interval > 0) as watcher:
            self._observer.watch_opened()
            try:
                yield watcher
            finally:
                watcher.leave()
                self._observer.watch_closed()

    @contextmanager
    def _counted(self, targets: Targets, *, wants_progress: bool) -> Iterator[Watcher]:
        if targets.all:
            reader = Reader(self._everything, self._turns, wants_progress=wants_progress)
            with self._interests.everything(reader):
                yield reader
        else:
            named = Named(min(self._history, _KEPT_BY_NAME), self._turns, wants_progress=wants_progress)
            with self._interests.named(named, targets):
                yield named

    def told_end(self, key: str) -> None:
        """Take note that a stream tells the end of ``key``: no progress may come after it."""
        self._ended[key] = None
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)

    async def turn(self) -> None:
        """Wait until a stream may go on: calls come in between."""
        await self._turns.mine()

    def changed(self, change: Change) -> Changed:
        """Return ``change`` with its token."""
        record = change.record
        return Changed(change, self.token(change.no), key_of(record), record.status.final)

    def token(self, no: int) -> str:
        """Return the token that resumes after change ``no``."""
        return ResumeToken(self._store.store_id, no).encode()

    @property
    def store(self) -> Store:
        """The store that pages are read from."""
        return self._store

    @property
    def published(self) -> int:
        """Everything up to this change was handed out."""
        return self._published

    @property
    def closing(self) -> bool:
        """Whether streams have to end."""
        return self._closing

    @property
    def bookmark_interval(self) -> float:
        """Seconds of silence after which a bookmark is due."""
        return self._bookmark_interval
