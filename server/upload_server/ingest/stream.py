"""Decides how one upload's bytes become durable: queued, written and hashed by hops to threads, synced beside that.

Must not know what the file may become. Everything but the hops' work runs on the event loop, so that no state needs a
lock: `_write` and the digest are used by one hop at a time, `SinkFile.sync` may run beside a write.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from upload_server.domain import File, FileStatus
from upload_server.errors import FileNotWritable, StorageFailure, UploadCancelled, UploadError, WriterReplaced
from upload_server.ingest.digest import Digest
from upload_server.ingest.parts import Parts
from upload_server.ingest.signal import StopSignal
from upload_server.sink import Chunk, SinkFile

log = structlog.get_logger(__name__)

# What a queued message costs besides its bytes, so that a million empty-ish ones are bounded as well.
_MESSAGE_COST = 64


class Stream:
    """The bytes of one upload on their way to the disk, from the claimed offset on."""

    def __init__(self, parts: Parts, file: File, sink_file: SinkFile, offset: int, stop: StopSignal) -> None:
        self._parts = parts
        self._file = file
        self._sink_file = sink_file
        self._digest = Digest(parts.sink, file.file_id)
        self._stop = stop
        # offset <= durable <= synced <= written <= received, all counted from the start of the file.
        self.received = self.written = self.synced = self.durable = offset
        self.ended = False
        self._queue: deque[Chunk] = deque()
        self._pending = 0  # cost of what is queued or being written
        self._failure: Exception | None = None
        self._closing = self._finalising = self._ready = self._settled = False
        self._syncing: asyncio.Task[None] | None = None
        self._sync_mark = offset  # what the last sync that was started covers
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = False
        self._catching_up: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._waiters: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        self._last_write = 0.0
        stop.on_set(self._changed)

    # For the upload ------------------------------------------------------------------------------------------------

    def put(self, data: Chunk) -> None:
        """Queue bytes; ``room`` must follow."""
        self._queue.append(data)
        self.received += len(data)
        self._charge(len(data) + _MESSAGE_COST)
        self._arm_timer()
        self._wake.set()

    def on_news(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called when ``durable`` has grown, and when the stream is stopped, has failed or ended."""
        self._listeners.append(listener)
        self._stop.on_set(listener)

    async def room(self) -> None:
        """Wait until the stream holds no more than it may; raises what ended it."""
        while self._pending > self._allowance():
            await self._change()
            self.check()

    async def wait_durable(self, above: int) -> int:
        """Wait for ``durable`` to grow; what it returns is not above only when the stream has ended well."""
        while self.durable <= above and not (self.ended or self._settled):
            self.check()
            await self._change()
        return self.durable

    async def finalise(self) -> str:
        """Have everything written, hashed and synced; returns the digest. Raises what ended the stream."""
        self._finalising = True
        self._changed()
        while not self._ready:
            self.check_open()
            await self._change()
        self.check_open()
        return self._digest.hexdigest()

    def settle(self, *, completed: bool) -> None:
        """Say that the file is final by this stream's own hand: nothing is left to sync or record."""
        self._settled = True
        if completed:
            self.durable = self.received
        self._changed()

    def close(self) -> None:
        """Take no more; what came is written, synced and recorded, unless the stream is abandoned or has failed."""
        self._closing = True
        self._changed()

    async def wait_ended(self) -> None:
        """Wait until nothing of this stream touches the disk any more."""
        while not self.ended:
            await self._change()

    def check(self) -> None:
        """Raise the stop signal's cause, or the failure that ended the stream."""
        self._stop.check()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def check_open(self) -> None:
        """Raise as ``check``; RuntimeError for the use of an upload that its own door has closed or completed."""
        self.check()
        if self._closing or self._settled:
            raise RuntimeError("the upload is closed")

    # The stream's life ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry bytes to the disk until the stream is closed, stopped or has failed; then let go of the file."""
        try:
            self._catch_up_if_far()
            await self._pump()
            await self._end_well()
        except Exception as error:  # noqa: BLE001 - a stream that fails must still let go of its file
            self._fail(error)
        finally:
            await self._release()

    async def _pump(self) -> None:
        while not self._over():
            if self._queue:
                if self._sync_lags():
                    await self._change()
                else:
                    await self._write_some()
                    self._sync_if_much()
            elif self._finalising and not self._ready:
                await self._make_ready()
            else:
                self._wake.clear()
                await self._wake.wait()

    def _over(self) -> bool:
        if self._stop.abandoned or self._failure is not None or self._settled:
            return True
        return (self._closing or self._stop.cause is not None) and not self._queue

    async def _write_some(self) -> None:
        chunks: list[Chunk] = []
        size = 0
        while self._queue and (not chunks or size + len(self._queue[0]) <= self._parts.limits.hop_bytes):
            chunks.append(self._queue.popleft())
            size += len(chunks[-1])
        try:
            if await self._parts.hop(self._write, chunks, self.written, self._catching_up is None):
                self.written += size
                self._parts.observer.bytes_taken(size)
        finally:
            self._charge(-size - _MESSAGE_COST * len(chunks))
            self._changed()

    def _write(self, chunks: list[Chunk], start: int, with_digest: bool) -> bool:
        """Write and hash; runs on a thread. Looks at the signal before and after the write. False: nothing written."""
        if self._stop.abandoned:
            return False
        self._sink_file.append(chunks)
        self._last_write = time.monotonic()
        if with_digest and not self._stop.abandoned:
            self._digest.follow(start, self._is_abandoned)
            if self._digest.position == start:
                self._digest.update(chunks)
        return True

    async def _make_ready(self) -> None:
        """All is written: catch the digest up and sync, both at once; not recorded, since `complete` does that."""
        if self._syncing is None and self.synced < self.written:
            self._start_sync()
        if self._catching_up is None and self._digest.position < self.written:
            await self._parts.hop(self._digest.follow, self.written, self._is_abandoned)
        elif self._syncing is not None or self._catching_up is not None:
            await self._change()
        else:
            self._ready = True
            self._changed()

    async def _end_well(self) -> None:
        """Make durable what came, if it is still this stream's to record."""
        await self._side_tasks()
        if self._settled or self._stop.abandoned or self._failure is not None:
            return
        self._finalising = False
        if self.durable < self.written:
            await self._start_sync()

    async def _release(self) -> None:
        self._charge(-self._pending)
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        await self._side_tasks()
        try:
            await self._parts.hop(self._sink_file.close)
        except OSError as error:
            # What had to be durable was synced before: closing can only tell of what was given up.
            log.warning("upload file did not close cleanly", file_id=self._file.file_id, error=repr(error))
        if isinstance(self._stop.cause, UploadCancelled):
            self._parts.observer.stopped(max(0.0, self._last_write - self._stop.set_at))
        self.ended = True
        self._changed()
        self._news()

    async def _side_tasks(self) -> None:
        tasks = [task for task in (self._syncing, self._catching_up) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    # A resumed prefix ----------------------------------------------------------------------------------------------

    def _catch_up_if_far(self) -> None:
        if self.written - self._digest.position > self._parts.limits.lag_bytes:
            self._catching_up = self._parts.tasks.spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Hash what is on disk until the digest is near the stream; from then on the writing hops go on."""
        limits = self._parts.limits
        try:
            while self.written - self._digest.position > limits.lag_bytes and not self._over():
                end = min(self.written, self._digest.position + limits.lag_bytes)
                await self._parts.hop(self._digest.follow, end, self._is_abandoned)
        except Exception as error:  # noqa: BLE001 - the task's owner hears of it by the failure
            self._fail(error)
        finally:
            self._catching_up = None
            self._changed()

    def _is_abandoned(self) -> bool:
        return self._stop.abandoned or self._closing

    # Syncs ---------------------------------------------------------------------------------------------------------

    def _sync_lags(self) -> bool:
        """Whether a sync is under way and as much again was written: more would pile up in the page cache."""
        return self._syncing is not None and self.written - self._sync_mark >= self._parts.limits.sync_bytes

    def _sync_if_much(self) -> None:
        due = self._timer_due or self.written - self._sync_mark >= self._parts.limits.sync_bytes
        if due and self._syncing is None and self.written > self._sync_mark:
            self._start_sync()

    def _arm_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._parts.limits.sync_seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due = True
        self._sync_if_much()

    def _start_sync(self) -> asyncio.Task[None]:
        self._sync_mark = self.written
        self._timer_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and not self._over():
            self._arm_timer()
        self._syncing = self._parts.tasks.spawn(self._sync(self.written))
        return self._syncing

    async def _sync(self, target: int) -> None:
        try:
            if self.synced < target:
                await self._parts.hop(self._sink_file.sync)
                self.synced = target
            if not (self._finalising or self._stop.abandoned):
                await self._record(target)
        except Exception as error:  # noqa: BLE001 - the task's owner hears of it by the failure
            self._fail(error)
        finally:
            self._syncing = None
            if not self._over():
                self._sync_if_much()
            self._changed()

    async def _record(self, target: int) -> None:
        file, parts = self._file, self._parts
        if await parts.store.record_progress(file.file_id, file.fence, target, parts.clock()):
            self.durable = target
            self._news()
            if not self._stop.abandoned:
                parts.on_progress(file.file_id, file.batch_id, target)
            return
        found = await parts.store.get_file(file.file_id, file.owner)
        if found.status is FileStatus.CANCELLED:
            self._stop.set(UploadCancelled(found))
        elif found.status is FileStatus.FAILED:
            self._fail(FileNotWritable(found))
        else:
            self._stop.set(WriterReplaced(file.file_id))

    # Bookkeeping ---------------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """End the stream; the first failure counts. The file stays as its row says."""
        if self._failure is not None:
            return
        if isinstance(error, OSError):
            log.error(
                "storage failed under an upload",
                file_id=self._file.file_id,
                errno=error.errno,
                error=repr(error),
                durable=self.durable,
                written=self.written,
            )
            self._failure = StorageFailure()
            self._failure.__cause__ = error
        else:
            if not isinstance(error, UploadError):
                log.error("an upload's stream broke", file_id=self._file.file_id, exc_info=error)
            self._failure = error
        self._changed()
        self._news()

    def _charge(self, cost: int) -> None:
        self._pending += cost
        self._parts.buffered += cost

    def _allowance(self) -> int:
        """Bytes this stream may hold; none when all together hold too much: then each waits for its own write."""
        limits = self._parts.limits
        return 0 if self._parts.buffered > limits.total_buffer_bytes else limits.buffer_bytes

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _changed(self) -> None:
        self._wake.set()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _news(self) -> None:
        for listener in self._listeners:
            listener()
