"""Decides who hears of which change, and in which order: watchers are cursors over change numbers.

Must not know any transport. A watcher is either *behind* (it reads pages of the store from its cursor on; a fresh
stream starts behind, at 0) or *live* (it is handed the changes that the hub's tail read, merged to the newest per
target). One that is handed more than it takes falls behind again: so live, slow and resumed watchers are one case.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from upload_server.domain import Batch, File
from upload_server.errors import ShuttingDown, UploadError
from upload_server.store import Change, Store, Targets
from upload_server.tokens import ResumeToken

log = structlog.get_logger(__name__)

# Rows read at once; also how many changes are handed out before other tasks get their turn.
_PAGE = 500
# After a failed read the tail waits this long; watchers keep their cursor, so nothing is lost.
_RETRY_SECONDS = 0.2


@dataclass(slots=True)
class Changed:
    """A change on its way to watchers. One object serves them all: ``wire`` caches what a door made of it."""

    change: Change
    token: str
    wire: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progressed:
    """The newest durable byte count of one file; no change, so it repeats the stream's current token."""

    file_id: str
    bytes_received: int
    token: str


@dataclass(frozen=True, slots=True)
class Bookmarked:
    """Everything up to ``token`` was sent. ``resynced``: the token asked for could not be honoured."""

    token: str
    resynced: bool = False


WatchEvent = Changed | Progressed | Bookmarked


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a watcher asks for; checked by the service."""

    targets: Targets
    resume: ResumeToken | None = None
    until_final: bool = False
    # Seconds between two progress events of the stream; 0: none.
    progress_interval: float = 0.0


def _key(record: File | Batch) -> str:
    return record.file_id if isinstance(record, File) else record.batch_id


class _Watcher:
    """One stream's place: what it was handed and has not sent yet, newest per target."""

    def __init__(self, limit: int, *, wants_progress: bool) -> None:
        self.wake = asyncio.Event()
        self.wants_progress = wants_progress
        self.behind = True
        self.pending: dict[str, Changed] = {}
        self.progress: dict[str, int] = {}
        self._limit = limit

    def offer(self, changed: Changed) -> None:
        """Take a change; an older one of the same target is merged into it. Never waits."""
        record = changed.change.record
        key = _key(record)
        # Taken out and put in at the end: the order stays that of the change numbers.
        self.pending.pop(key, None)
        self.pending[key] = changed
        if record.status.final:
            self.progress.pop(key, None)
        if len(self.pending) > self._limit:
            self.pending.clear()
            self.behind = True
        self.wake.set()

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count; it is sent with the next tick."""
        if not self.progress:
            # The stream may be resting until its next bookmark: let it set its timer anew.
            self.wake.set()
        self.progress[file_id] = bytes_received

    def drop_upto(self, no: int) -> None:
        """Forget what a page read up to ``no`` has covered."""
        self.pending = {key: c for key, c in self.pending.items() if c.change.no > no}


class WatchObserver(Protocol):
    """Who counts watches; called on the event loop, must not block or raise."""

    def watch_opened(self) -> None:
        """One more watch is open."""

    def watch_closed(self) -> None:
        """One watch less is open."""


class _NoObserver:
    def watch_opened(self) -> None:
        """Ignore."""

    def watch_closed(self) -> None:
        """Ignore."""


class WatchHub:
    """Hands every committed change to the watchers of its target."""

    def __init__(
        self, store: Store, *, history: int, bookmark_interval: float, observer: WatchObserver | None = None
    ) -> None:
        self._observer = observer or _NoObserver()
        self._store = store
        self._history = history
        self._bookmark_interval = bookmark_interval
        self._published = store.last_change
        self._committed = asyncio.Event()
        self._closing = False
        self._watchers: set[_Watcher] = set()
        # Who watches a file or batch by its id, who all files of a batch, who everything.
        self._by_id: defaultdict[str, set[_Watcher]] = defaultdict(set)
        self._by_batch_files: defaultdict[str, set[_Watcher]] = defaultdict(set)
        self._all: set[_Watcher] = set()
        store.on_commit(self._committed.set)

    @property
    def open_watches(self) -> int:
        """Streams that are open on this node."""
        return len(self._watchers)

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
                self._committed.set()

    def close(self) -> None:
        """End every stream with ``ShuttingDown``; it can be resumed on another node or later."""
        self._closing = True
        for watcher in self._watchers:
            watcher.wake.set()

    def publish_progress(self, file_id: str, batch_id: str, bytes_received: int) -> None:
        """Hand on how far an open upload is; must not be called once its file is final."""
        if not self._watchers:
            return
        for watcher in self._interested(file_id, batch_id):
            if watcher.wants_progress:
                watcher.offer_progress(file_id, bytes_received)

    async def watch(self, request: WatchRequest, owner: str) -> AsyncIterator[WatchEvent]:
        """Yield the opening state, one bookmark, then changes, as the contract's "Watching" says.

        Raises ``FileNotFound`` or ``BatchNotFound`` before anything, ``ShuttingDown`` when the server drains.
        """
        if self._closing:
            raise ShuttingDown
        # Joined before the first read: what is committed after that read's snapshot is handed over, so nothing falls
        # between the two.
        with self._joined(request) as watcher:
            stream = _Stream(self, watcher, request, owner)
            async for event in stream.events():
                yield event

    async def _tail(self) -> None:
        complete = False
        while not complete and self._watchers:
            page = await self._store.read_changes(Targets(all=True), "", self._published, _PAGE)
            for change in page.changes:
                self._publish(change)
            complete = page.complete
            self._published = max(self._published, page.last_change if complete else page.changes[-1].no)
            await asyncio.sleep(0)

    def _publish(self, change: Change) -> None:
        record = change.record
        if isinstance(record, File):
            watchers = self._interested(record.file_id, record.batch_id)
        else:
            watchers = self._all | self._by_id.get(record.batch_id, set())
        if watchers:
            changed = self.changed(change)
            for watcher in watchers:
                watcher.offer(changed)

    def _interested(self, file_id: str, batch_id: str) -> set[_Watcher]:
        return self._all.union(self._by_id.get(file_id, ()), self._by_batch_files.get(batch_id, ()))

    def changed(self, change: Change) -> Changed:
        """Return ``change`` with its token."""
        return Changed(change, self.token(change.no))

    def token(self, no: int) -> str:
        """Return the token that resumes after change ``no``."""
        return ResumeToken(self._store.store_id, no).encode()

    @contextmanager
    def _joined(self, request: WatchRequest) -> Iterator[_Watcher]:
        watcher = _Watcher(self._history, wants_progress=request.progress_interval > 0)
        if not self._watchers:
            # The tail rests while nobody watches; what was committed meanwhile is the opening read's.
            self._published = max(self._published, self._store.last_change)
        places = self._places(request.targets)
        self._watchers.add(watcher)
        self._observer.watch_opened()
        for _, _, group in places:
            group.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._observer.watch_closed()
            for index, key, group in places:
                group.discard(watcher)
                if index is not None and not group and index.get(key) is group:
                    del index[key]

    def _places(self, targets: Targets) -> list[tuple[defaultdict[str, set[_Watcher]] | None, str, set[_Watcher]]]:
        if targets.all:
            return [(None, "", self._all)]
        places = [(self._by_id, key) for key in targets.file_ids | targets.batch_ids]
        if targets.include_batch_files:
            places += [(self._by_batch_files, key) for key in targets.batch_ids]
        return [(index, key, index[key]) for index, key in places]

    # What a stream asks of its hub ------------------------------------------------------------------------------

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


class _Stream:
    """The course of one watch: opening, bookmark, live, behind again, end."""

    def __init__(self, hub: WatchHub, watcher: _Watcher, request: WatchRequest, owner: str) -> None:
        self._hub = hub
        self._watcher = watcher
        self._request = request
        self._owner = owner
        self._cursor = 0
        # Named targets whose final state is still to be sent; only for until_final.
        self._awaited: set[str] = set()

    async def events(self) -> AsyncIterator[WatchEvent]:
        opening = await self._hub.store.check_targets(self._request.targets, self._owner)
        resynced = self._start(opening.last_change)
        skip_final_upto = opening.last_change if self._request.targets.all and not self._resumes(resynced) else 0
        if self._request.until_final:
            self._awaited = {
                _key(c.record) for c in opening.changes if not c.record.status.final or c.no > self._cursor
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
                self._request.targets, self._owner, self._cursor, _PAGE, skip_final_upto
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
            self._awaited.discard(_key(record))

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
