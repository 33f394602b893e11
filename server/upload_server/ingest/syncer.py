"""Decides when a stream's bytes are synced and recorded: only both together make them durable.

Must not know where the bytes come from. Syncs run beside writes, one at a time, and the next one runs beside the record
of the one before; records run one at a time too, in the order of the bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from upload_server.domain.states import File
from upload_server.domain.steps import note
from upload_server.ingest.ending import Ending
from upload_server.ingest.parts import Parts
from upload_server.sink.protocol import SinkError, SinkFile

# One sync, beside the record of the one before.
_MOST_UNDER_WAY = 2


class Syncer:
    """Moves ``marks.synced`` and ``marks.durable`` after ``marks.written``. Everything runs on the event loop."""

    def __init__(
        self,
        parts: Parts,
        file: File,
        sink_file: SinkFile,
        ending: Ending,
        writer: str,
        on_synced: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._on_synced = on_synced
        self._file = file
        self._sink_file = sink_file
        self._marks = ending.marks
        self._ending = ending
        # While a commit is at work nothing is recorded: the write that completes the file does that.
        self.recording = True
        # What the row says of whose bytes these are.
        self.writer = writer
        # The newest sync and its record, while they are under way; ends after all before it, and never raises.
        self.running: asyncio.Task[None] | None = None
        # Syncs that are under way or not recorded yet: of two the older one is being recorded.
        self._under_way = 0
        self._syncing = False
        # The last sync covers the bytes up to here, also while it is under way.
        self._target = ending.marks.written
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    @property
    def lags(self) -> bool:
        """Whether a sync is under way and as much again was written: more would pile up in the page cache."""
        return self.running is not None and self._unsynced() >= self._parts.limits.sync_bytes

    @property
    def may_start(self) -> bool:
        """Whether no sync is under way, and no more than one record: while the store is away bytes must not go on."""
        return not self._syncing and self._under_way < _MOST_UNDER_WAY

    def arm(self) -> None:
        """Bytes have come: they are to be synced within the time set."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._parts.limits.sync_seconds, self._on_timer)

    def disarm(self) -> None:
        """Forget the time set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def start_if_due(self) -> None:
        """Start a sync if enough was written or enough time has passed, and no other one is under way."""
        parts = self._parts
        due = self._due or self._unsynced() >= parts.limits.sync_bytes
        # Bytes that the sink keeps in memory leave it by a sync alone.
        due = due or (parts.sink.buffers and parts.memory.is_crowded())
        if due and self.may_start and self._unsynced() and not self._ending.dead:
            # A sink that puts pieces together later likes them whole.
            in_time = parts.sink.buffers and not self._due and self._unsynced() >= parts.limits.sync_bytes
            self.start(self._marks.written // parts.limits.sync_bytes * parts.limits.sync_bytes if in_time else None)

    def start(self, upto: int | None = None) -> asyncio.Task[None]:
        """Start a sync of what is written, or of that ``upto`` there; no other sync may be under way."""
        self._target = self._marks.written if upto is None else upto
        self._due = False
        self.disarm()
        if self._marks.received > self._target:
            self.arm()
        self._under_way += 1
        self._syncing = True
        self.running = self._parts.tasks.spawn(self._make_durable(self._target, self.running))
        return self.running

    def _unsynced(self) -> int:
        return self._marks.written - self._target

    def _on_timer(self) -> None:
        self._timer = None
        # The sync before may have covered what the timer was set for.
        self._due = self._marks.received > self._target
        self.start_if_due()

    async def _make_durable(self, target: int, before: asyncio.Task[None] | None) -> None:
        try:
            await self._sync(target)
            if before is not None:
                # A row never counts bytes before those in front of them.
                await asyncio.wait({before})
                # Where that one's record has failed this one would only be as patient as it was, once more.
                if self._ending.dead:
                    return
            if self.recording and not self._ending.abandoned:
                await self._record(self._marks.synced)
        except Exception as error:  # noqa: BLE001 - the stream hears of it by its ending
            self._ending.fail(error)
        finally:
            if before is not None and not before.done():
                # Whoever waits for this one waits for all before it, also where its own sync has failed.
                await asyncio.wait({before})
            self._under_way -= 1
            if not self._under_way:
                self.running = None
            self.start_if_due()
            self._ending.changed()

    async def _sync(self, target: int) -> None:
        try:
            if self._marks.synced < target:
                began = time.monotonic()
                synced = await self._parts.wait(self._sink_file.sync, target)
                note("storage.sync", began)
                if synced < target:
                    raise SinkError(f"{synced} bytes were made durable where {target} had been written")
                # A hop appends bytes before it counts them as written.
                self._marks.synced = self._target = min(synced, self._marks.written)
                self._on_synced()
        finally:
            self._syncing = False
        if self.recording:
            # Whoever waited for the sync need not wait for its record.
            self.start_if_due()
            self._ending.changed()

    async def _record(self, synced: int) -> None:
        file, parts = self._file, self._parts
        if await parts.store.record_progress(file.file_id, file.fence, synced, parts.clock(), self.writer):
            self._marks.durable = synced
            self._ending.news()
            if not self._ending.abandoned:
                parts.on_progress(file.file_id, file.batch_id, file.owner, synced)
            return
        self._ending.refused = True
        self._ending.end_as(await parts.store.get_file(file.file_id))
