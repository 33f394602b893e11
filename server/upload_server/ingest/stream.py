"""Decides how one upload's bytes get to the disk: queued, then written and hashed by hops to threads, one at a time.

Must not know what the file may become. All but a hop's own work runs on the event loop, so no state needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from upload_server.domain.errors import UploadCancelled
from upload_server.domain.states import File
from upload_server.ingest.digest import Digest
from upload_server.ingest.ending import Ending
from upload_server.ingest.parts import Parts
from upload_server.ingest.syncer import Syncer
from upload_server.sink.protocol import Chunk, SinkError, SinkFile

log = structlog.get_logger(__name__)

# A queued message costs this besides its bytes, so that a million of one byte each are bounded as well.
_MESSAGE_COST = 64


@dataclass(slots=True)
class Piece:
    """Messages that are written at once, and their bytes together."""

    chunks: list[Chunk]
    size: int


class Stream:
    """The bytes of one upload on their way to the disk, from the claimed offset on."""

    def __init__(self, parts: Parts, file: File, sink_file: SinkFile, ending: Ending, writer: str) -> None:
        # As claimed: its ``fence`` is this stream's.
        self.file = file
        self.ending = ending
        self.marks = ending.marks
        self._parts = parts
        self._sink_file = sink_file
        self._syncer = Syncer(parts, file, sink_file, ending, writer)
        self._digest = Digest(parts.sink, file.file_id)
        self._catching_up: asyncio.Task[None] | None = None
        self._queue: deque[Chunk] = deque()
        # Cost of what is queued or being written.
        self._pending = 0
        # `_closing`: takes no more. `_finalising`: a commit waits for `_ready`. `_settled`: the file is final.
        # `_withheld`: nothing may become durable until it is released.
        self._closing = self._finalising = self._ready = self._settled = self._ended = self._withheld = False
        self._disowned = False
        self._last_write = 0.0

    # For its sender ------------------------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        """Bytes that were taken, from the start of the file; those above ``durable`` can still be lost."""
        return self.marks.received

    @property
    def durable(self) -> int:
        """Bytes that are synced and recorded in the row; never shrinks."""
        return self.marks.durable

    async def wait_durable(self, above: int) -> int:
        """Wait until ``durable`` is greater than ``above`` and return it.

        What it returns is not greater only when the stream has been closed or completed. Raises what ended the stream:
        the cause of its stop, ``StorageFailure``, ``DatabaseFailure``, ...
        """
        while self.marks.durable <= above and not self._settled:
            self.ending.check()
            if self._ended:
                break
            await self.ending.change()
        return self.marks.durable

    def withhold(self) -> None:
        """Let nothing that is written from now on become durable until ``release``.

        For bytes that have to be judged first: closed before that, the stream leaves the file as if none had come.
        """
        self._withheld = True
        self._syncer.recording = False

    def release(self) -> None:
        """The bytes are good: they become durable like any others."""
        self._withheld = False
        self._syncer.recording = True

    def disown(self) -> None:
        """Have the row say, once the stream is closed, that the file does not end where this stream's bytes do."""
        self._syncer.writer = ""
        self._disowned = True

    @contextlib.asynccontextmanager
    async def settled(self) -> AsyncIterator[int]:
        """Make durable what was received by now, unless it is withheld; in the block nothing more becomes durable.

        For the stream that takes over: yields where the durable bytes end. Waits a bounded time.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._parts.limits.close_seconds):
                    await self._record_up_to(self.marks.received)
            # Also when the time was up: a later record would move the row past what the newcomer is told.
            self._syncer.recording = False
            yield self.marks.durable
        finally:
            self._syncer.recording = not (self._withheld or self._finalising)

    def close_soon(self) -> None:
        """Take no more; what came is written, synced and recorded, unless the stream is abandoned or has failed."""
        self._closing = True
        self.ending.changed()

    async def wait_ended(self) -> None:
        """Wait until nothing of this stream touches the disk any more."""
        while not self._ended:
            await self.ending.change()

    async def _record_up_to(self, target: int) -> None:
        while self.marks.durable < target and self._syncer.recording and not (self.ending.dead or self._ended):
            if self._syncer.running is None and self.marks.written > self.marks.durable:
                self._syncer.start()
            await self.ending.change()
        self._syncer.recording = False
        if self._syncer.running is not None:
            # What it is just recording still counts.
            await asyncio.wait({self._syncer.running})

    # For the upload ------------------------------------------------------------------------------------------------

    async def _take(self, data: Chunk) -> None:
        """Queue bytes, then wait until the stream holds no more than it may; raises what ended it."""
        self._queue.append(data)
        self.marks.received += len(data)
        self._charge(len(data) + _MESSAGE_COST)
        self._syncer.arm()
        self.ending.changed()
        while self._pending > self._allowance():
            await self.ending.change()
            self.ending.check()

    async def _finalise(self) -> str:
        """Have everything written, hashed and synced; returns the digest. Raises what ended the stream."""
        self._finalising = True
        self._syncer.recording = False
        self.ending.changed()
        while not self._ready:
            self._check_open()
            await self.ending.change()
        self._check_open()
        return self._digest.hexdigest()

    def _settle(self, *, completed: bool) -> None:
        """Say that the file is final by this stream's own hand: nothing is left to sync or record."""
        self._settled = True
        if completed:
            self.marks.durable = self.marks.received
        self.ending.changed()

    def _check_open(self) -> None:
        """Raise what ended the stream; RuntimeError for the use of an upload that its own door closed or completed."""
        self.ending.check()
        if self._closing or self._settled:
            raise RuntimeError("the upload is closed")

    # The stream's life ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry bytes to the disk until the stream is closed, stopped or has failed; then let go of the file."""
        try:
            self._catch_up_if_far()
            while not self._over():
                await self._work()
            await self._end_well()
        except Exception as error:  # noqa: BLE001 - whoever uses the stream hears of it by its ending
            self.ending.fail(error)
        finally:
            await self._release()

    async def _work(self) -> None:
        """Do the next thing there is to do, or wait for one."""
        if self._queue and self._parts.holds.covers(self.file):
            self._parts.holds.on_change(self.ending.changed)
            await self.ending.change()
        elif self._queue and not self._syncer.lags:
            await self._write_some()
            self._syncer.start_if_due()
        elif self._finalising and not self._queue and not self._ready:
            await self._make_ready()
        else:
            await self.ending.change()

    def _over(self) -> bool:
        if self.ending.dead or self._settled:
            return True
        return (self._closing or self.ending.cause is not None) and not self._queue

    async def _write_some(self) -> None:
        pieces: list[Piece] = []
        left = self._parts.limits.hop_bytes
        while self._queue and (not pieces or len(self._queue[0]) <= left):
            pieces.append(self._take_piece(left))
            left -= pieces[-1].size
        try:
            written = await self._parts.hop(self._write, pieces, self.marks.written, self._catching_up is None)
            for piece in reversed(pieces[written:]):
                self._queue.extendleft(reversed(piece.chunks))
            for piece in pieces[:written]:
                self.marks.written += piece.size
                self._charge(-piece.size - _MESSAGE_COST * len(piece.chunks))
                self._parts.observer.bytes_taken(piece.size)
        finally:
            self.ending.changed()

    def _take_piece(self, most: int) -> Piece:
        """Take from the queue what is written at once: some messages, or a single large one."""
        piece = Piece([], 0)
        most = min(most, self._parts.limits.piece_bytes)
        while self._queue and (not piece.chunks or piece.size + len(self._queue[0]) <= most):
            piece.chunks.append(self._queue.popleft())
            piece.size += len(piece.chunks[-1])
        return piece

    def _write(self, pieces: Sequence[Piece], start: int, with_digest: bool) -> int:
        """Write and hash; runs on a thread. Returns how many pieces were written: before each it looks for a cancel."""
        for number, piece in enumerate(pieces):
            if self.ending.abandoned or self._parts.holds.covers(self.file):
                return number
            self._sink_file.append(piece.chunks)
            self._last_write = time.monotonic()
            if with_digest and not self.ending.abandoned:
                self._digest.follow(start, self._digest_unwanted)
                if self._digest.position == start:
                    self._digest.update(piece.chunks)
            start += piece.size
        return len(pieces)

    async def _make_ready(self) -> None:
        """All is written: catch the digest up and sync, both at once; not recorded, since `complete` does that."""
        if self._syncer.running is None and self.marks.synced < self.marks.written:
            self._syncer.start()
        if self._catching_up is None and self._digest.position < self.marks.written:
            await self._parts.hop(self._digest.follow, self.marks.written, self._digest_unwanted)
        elif self._side_tasks():
            await self.ending.change()
        else:
            self._ready = True
            self.ending.changed()

    async def _end_well(self) -> None:
        """Make durable what came, if it is still this stream's to record."""
        await self._wait_side_tasks()
        if self._settled or self.ending.dead or self._withheld:
            return
        self._syncer.recording = True
        if self.marks.durable < self.marks.written or self._disowned:
            await self._syncer.start()

    async def _release(self) -> None:
        self._charge(-self._pending)
        self._queue.clear()
        self._syncer.disarm()
        await self._wait_side_tasks()
        try:
            await self._parts.wait(self._sink_file.close)
        except SinkError as error:
            # Bytes that had to be durable were synced before: a failed close can only lose some that were given up.
            log.warning("upload file did not close cleanly", file_id=self.file.file_id, error=repr(error))
        if isinstance(self.ending.cause, UploadCancelled):
            self._parts.observer.stream_stopped(max(0.0, self._last_write - self.ending.stopped_at))
        self._ended = True
        self.ending.news()

    def _side_tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._syncer.running, self._catching_up) if task is not None]

    async def _wait_side_tasks(self) -> None:
        while tasks := self._side_tasks():
            await asyncio.wait(tasks)

    # A resumed prefix ----------------------------------------------------------------------------------------------

    def _catch_up_if_far(self) -> None:
        if self.marks.written > self._parts.limits.lag_bytes:
            self._catching_up = self._parts.tasks.spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Hash what is on disk until the digest is near the stream; from then on the writing hops go on with it."""
        lag = self._parts.limits.lag_bytes
        try:
            while self.marks.written - self._digest.position > lag and not self._over():
                end = min(self.marks.written, self._digest.position + lag)
                await self._parts.hop(self._digest.follow, end, self._digest_unwanted)
        except Exception as error:  # noqa: BLE001 - the stream hears of it by its ending
            self.ending.fail(error)
        finally:
            self._catching_up = None
            self.ending.changed()

    def _digest_unwanted(self) -> bool:
        """Whether no commit can come any more; threads ask this between two reads."""
        return self.ending.dead or self._closing

    # Bookkeeping ---------------------------------------------------------------------------------------------------

    def _charge(self, cost: int) -> None:
        self._pending += cost
        self._parts.memory.hold(cost)

    def _allowance(self) -> int:
        """Bytes this stream may hold; none when all together hold too much: then each waits for its own write."""
        limits = self._parts.limits
        return 0 if self._parts.memory.is_full() else limits.buffer_bytes
