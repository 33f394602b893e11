"""Decides when watchers are offered what was committed: one hub reads the store, however many watch.

Must not know what a stream makes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.errors import CutOff, ShuttingDown, UploadError
from upload_server.domain.observer import Observer
from upload_server.domain.states import File
from upload_server.store.protocol import Store
from upload_server.store.values import Change, Targets
from upload_server.watch.events import Outlet, WatchEvent, WatchRequest
from upload_server.watch.history import AllWatcher, Histories
from upload_server.watch.interests import Interests, NamedWatcher
from upload_server.watch.stream import PAGE, Shared, Stream
from upload_server.watch.watcher import Watcher

log = structlog.get_logger(__name__)

# Changes that are kept for one watcher of named ids; one that takes less reads them from the store, by their ids. Each
# takes 150 bytes, and thousands of watchers may not read.
_KEPT_BY_NAME = 100
# After a failed read the hub waits this long; watchers keep their cursor, so nothing is lost.
_RETRY_SECONDS = 0.2
# So often the hub reads how far uploads at other nodes are: for those who name files, and for those who want all.
_NAMED_SECONDS = 0.25
_ALL_SECONDS = 1.0
# Changes times watchers by name that the hub offers before other tasks get their turn: some milliseconds.
_TURN = 2000


class WatchHub:
    """Hands every committed change to the watchers of its target."""

    def __init__(self, store: Store, *, history: int, bookmark_interval: float, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._kept_by_name = min(history, _KEPT_BY_NAME)
        self._histories = Histories(history)
        self._interests = Interests()
        self._shared = Shared(store, bookmark_interval, published=store.last_change)
        self._nudged = asyncio.Event()
        # Whoever watches, where they have said who they are.
        self._callers: dict[Watcher, Caller] = {}

    @property
    def open_watches(self) -> int:
        """Streams that are open on this node."""
        return len(self._interests.watchers)

    def nudge(self) -> None:
        """Say that changes were committed; the hub hands them out soon, if anybody watches."""
        if self._interests.watchers:
            self._nudged.set()

    async def run(self) -> None:
        """Hand out changes as they are committed, until cancelled."""
        while True:
            await self._nudged.wait()
            self._nudged.clear()
            try:
                await self._tail()
            except UploadError as error:
                log.warning("watch.tail_failed", reason=error.reason)
                await asyncio.sleep(_RETRY_SECONDS)
                self.nudge()

    async def follow_others(self) -> None:
        """Hand on how far uploads at other nodes are, until cancelled."""
        told: dict[str, int] = {}
        while True:
            wanted = self._interests.with_progress() if self._store.others else None
            await asyncio.sleep(_NAMED_SECONDS if wanted is not None and not wanted.all else _ALL_SECONDS)
            if wanted is None:
                told = {}
                continue
            try:
                found = await self._store.read_progress(wanted)
            except UploadError as error:
                log.warning("watch.progress_not_read", reason=error.reason)
                continue
            for file_id, batch_id, owner, bytes_received in found:
                if told.get(file_id, 0) != bytes_received:
                    self.publish_progress(file_id, batch_id, owner, bytes_received)
            told = {file_id: bytes_received for file_id, _, _, bytes_received in found}

    def close(self, why: type[ShuttingDown] = ShuttingDown) -> None:
        """End every stream, also one to come; it can be resumed on another node or later."""
        self._shared.closing = why
        for watcher in self._interests.watchers:
            watcher.wake()

    def end_where(self, verdict: Callable[[Caller], UploadError | None]) -> None:
        """End the streams of callers who may not go on, as ``verdict`` says."""
        for watcher, caller in self._callers.items():
            if watcher.lost is None and (why := verdict(caller)) is not None:
                watcher.lost = why
                watcher.wake()

    def open_again(self) -> None:
        """This node is not cut off any more: take streams again, unless it drains."""
        if self._shared.closing is CutOff:
            self._shared.closing = None

    def publish_progress(self, file_id: str, batch_id: str, owner: str, bytes_received: int) -> None:
        """Hand on how far an open upload is; nothing if a stream has sent the file's end already."""
        if not self._interests.watchers or file_id in self._shared.ended:
            return
        for watcher in chain(self._interests.of_all(owner), self._interests.by_name(file_id, batch_id)):
            if watcher.wants_progress:
                watcher.offer_progress(file_id, bytes_received)

    def watch(
        self, request: WatchRequest, sees: str | None, outlet: Outlet | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the opening state, one bookmark, then changes, as the contract's "Watching" says.

        ``sees`` is the one owner whose rows there are for the watcher; None: everybody's.
        While ``outlet`` is free and the stream is not behind, changes go out there and are not yielded.

        Raises ``FileNotFound`` or ``BatchNotFound`` before anything, ``ShuttingDown`` when the server drains,
        and later why its caller may not go on.
        """
        return Stream(self._shared, self._joined(request, sees), request, sees, outlet).events()

    @contextmanager
    def _joined(self, request: WatchRequest, sees: str | None) -> Iterator[Watcher]:
        """Offer changes to a watcher, as long as the block runs."""
        if not self._interests.watchers:
            # The hub rests while nobody watches; what was committed meanwhile is the opening read's.
            self._shared.published = max(self._shared.published, self._store.last_change)
        watcher = self._new_watcher(request.targets, sees, wants_progress=request.progress_interval > 0)
        self._interests.add(watcher)
        if request.caller is not None and request.caller.credential:
            self._callers[watcher] = request.caller
        self._observer.watch_opened()
        try:
            yield watcher
        finally:
            self._interests.remove(watcher)
            self._callers.pop(watcher, None)
            watcher.leave()
            self._observer.watch_closed()

    def _new_watcher(self, targets: Targets, sees: str | None, *, wants_progress: bool) -> NamedWatcher | AllWatcher:
        if targets.all:
            return AllWatcher(self._histories, sees, self._shared.turns, wants_progress=wants_progress)
        return NamedWatcher(targets, self._kept_by_name, self._shared.turns, wants_progress=wants_progress)

    async def _tail(self) -> None:
        complete = False
        while not complete and self._interests.watchers:
            page = await self._store.read_changes(Targets(all=True), None, self._shared.published, PAGE)
            handed = 0
            for change in page.changes:
                handed += self._publish(change)
                if handed >= _TURN:
                    handed = 0
                    await asyncio.sleep(0)
            complete = page.complete
            self._shared.published = max(self._shared.published, page.last_change if complete else page.changes[-1].no)
            await asyncio.sleep(0)

    def _publish(self, change: Change) -> int:
        """Offer a change to the watchers that it concerns; returns to how many of those that named it."""
        changed, record = self._shared.changed(change), change.record
        self._histories.publish(record.owner, changed)
        watchers = self._interests.by_name(changed.key, record.batch_id if isinstance(record, File) else "")
        for watcher in watchers:
            watcher.offer(changed)
        return len(watchers)
