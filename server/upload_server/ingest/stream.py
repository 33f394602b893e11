"""Decides how one upload's bytes get to the disk: queued, then written by hops to threads, and hashed beside that.

Must not know what the file may become. All but a hop's own work runs on the event loop, so no state needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import structlog

from upload_server.domain.errors import UploadCancelled
from upload_server.ingest.digest import Digest, Piece
from upload_server.ingest.ending import Ending
from upload_server.ingest.parts import Parts
from upload_server.ingest.syncer import Syncer
from upload_server.sink.protocol import Chunk, SinkError, SinkFile
from upload_server.store.values import Claim

log = structlog.get_logger(__name__)

# A queued message costs this besides its bytes, so that a million of one byte each are bounded as well.
_MESSAGE_COST = 64
# Seconds that bytes wait for company, as long as nobody waits for them: a hop for each message costs more than they do.
_COMPANY_SECONDS = 0.005
# Read back over the network by one hop: each has to ask for the names of the file's pieces.
_READ_BACK_BYTES = 256 * 1024 * 1024
# So little is hashed by the thread that wrote it: another hop costs more.
_SMALL_BYTES = 64 * 1024


# A piece counts for at least so much of a hop: a sender of crumbs must not keep a thread.
_LEAST_OF_HOP = 16 * 1024


class Source(Protocol):
    """Bytes of one upload that a thread may read, beside the event loop."""

    @property
    def left(self) -> int:
        """How many bytes come from it at most."""

    def read_into(self, buffer: bytearray) -> int:
        """Fill a buffer with bytes that are there; returns how many, 0 when there are none; never waits or raises."""


class Stream:
    """The bytes of one upload on their way to the disk, from the claimed offset on."""

    def __init__(self, parts: Parts, claim: Claim, sink_file: SinkFile, ending: Ending, writer: str) -> None:
        # As claimed: its ``fence`` is this stream's.
        self.file = claim.file
        self._runs = claim.runs
        self.ending = ending
        self.marks = ending.marks
        self._parts = parts
        self._sink_file = sink_file
        self._syncer = Syncer(parts, claim.file, sink_file, ending, writer, self._on_synced)
        self._digest = Digest(
            parts.sink,
            claim.file.file_id,
            claim.runs,
            self.marks.written,
            parts.limits.lag_bytes,
            parts.buffers.give_back,
            (lambda: self.marks.synced) if parts.sink.buffers else None,
        )
        # The hop that goes on with the digest, while one does.
        self._hashing: asyncio.Future[None] | None = None
        # The event loop adds at the end, a hop takes from the front.
        self._queue: deque[Chunk] = deque()
        # Where a hop gets more from once the queue is empty, while its sender waits in `draw`.
        self._source: Source | None = None
        # Until it rings, what is queued may wait for company.
        self._company: asyncio.TimerHandle | None = None
        # Cost of all that was taken, and what of it `Memory` counts: what is queued, being written or not hashed yet.
        self._taken = 0
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

    @property
    def is_over(self) -> bool:
        """Whether the file has come to its end, as far as the stream knows."""
        return self._settled or isinstance(self.ending.cause, UploadCancelled)

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
        self.marks.received += len(data)
        self._queue.append(data)
        self._taken += len(data) + _MESSAGE_COST
        self._account()
        self._syncer.arm()
        if self._company is None:
            self._company = asyncio.get_running_loop().call_later(_COMPANY_SECONDS, self._on_late_company)
        if not self._may_wait():
            self.ending.changed()
        while self._pending > self._allowance():
            await self.ending.change()
            self.ending.check()

    async def _draw(self, source: Source) -> None:
        """Have hops take bytes from a source until it has none; raises what ended the stream."""
        self._source = source
        self.ending.changed()
        try:
            while self._source is not None:
                await self.ending.change()
                self.ending.check()
        finally:
            self._source = None

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
            self._hash_on()
            while not self._over():
                await self._work()
            await self._end_well()
        except Exception as error:  # noqa: BLE001 - whoever uses the stream hears of it by its ending
            self.ending.fail(error)
        finally:
            await self._release()

    async def _work(self) -> None:
        """Do the next thing there is to do, or wait for one."""
        if (self._queue or self._source) and self._parts.holds.covers(self.file):
            self._parts.holds.on_change(self.ending.changed)
            await self.ending.change()
        elif ((self._queue and not self._may_wait()) or self._may_draw()) and not self._syncer.lags:
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

    def _may_wait(self) -> bool:
        """Whether what is queued may wait for company: it is little, and nobody waits for it."""
        return (
            self._company is not None
            and self.marks.received - self.marks.written < min(self._parts.limits.hop_bytes, self._allowance() // 2)
            and not (self._finalising or self._closing or self.ending.cause is not None)
        )

    def _on_late_company(self) -> None:
        self._company = None
        self.ending.changed()

    async def _write_some(self) -> None:
        before, hashes_alone = self.marks.written, self._hashing is None
        carrying = self._parts.hop(self._carry, self._queued_pieces(), hashes_alone)
        if hashes_alone:
            # A sync that ends meanwhile begins no hash beside this one: two would count a piece twice.
            self._hashing = carrying
        try:
            await carrying
        finally:
            if hashes_alone:
                self._hashing = None
            self._account()
            self._syncer.arm()
            self._parts.observer.bytes_taken(self.marks.written - before)
            self.ending.changed()
        self._hash_on()

    def _carry(self, pieces: Iterator[Piece], hashes_alone: bool) -> None:
        """Write pieces and hand them to the digest, until a cancel holds or has ended the file; runs on a thread."""
        before = self.marks.written
        for piece in pieces:
            if self._is_held():
                # Looked at last of all: between the look and the write another thread may run for long.
                self._queue.extendleft(reversed(piece.chunks))
                break
            self._sink_file.append(piece.chunks)
            self._last_write = time.monotonic()
            self._digest.add(piece)
            self.marks.written += piece.size
        if hashes_alone and self._digest.lag == self.marks.written - before <= _SMALL_BYTES:
            self._digest.go_on(_SMALL_BYTES, self._digest_unwanted)

    def _is_held(self) -> bool:
        """Whether no further byte of the file may be written, for now or for good."""
        return self.ending.abandoned or self._parts.holds.covers(self.file)

    def _queued_pieces(self) -> Iterator[Piece]:
        """Take from the queue, also what comes meanwhile, what one hop writes; runs on its thread."""
        left = self._hop_bytes()
        while left > 0 and not self._is_held() and (self._queue or self._draw_piece()):
            piece = self._next_piece(min(left, self._parts.limits.piece_bytes))
            left -= max(piece.size, _LEAST_OF_HOP)
            yield piece

    def _hop_bytes(self) -> int:
        """About as much is written, or hashed, by one hop: more of a source, which costs the event loop hops alone."""
        limits = self._parts.limits
        return limits.hop_bytes if self._source is None else limits.draw_bytes

    def _may_draw(self) -> bool:
        """Whether bytes may be taken from the source: the digest keeps up, and memory is not short."""
        parts = self._parts
        # What waits in the sink is a piece of its own size.
        most = parts.limits.buffer_bytes if parts.sink.buffers else parts.limits.draw_bytes
        return self._source is not None and self._held() <= (0 if parts.memory.is_full() else most)

    def _draw_piece(self) -> bool:
        """Queue a piece of the source, if it has one; runs on a hop's thread, while nobody else adds to the queue."""
        source = self._source
        if source is None or not self._may_draw():
            return False
        buffer = self._parts.buffers.take()
        count = source.read_into(buffer)
        data: Chunk = memoryview(buffer)[:count]
        if count * 2 < len(buffer):
            # Memory is counted by what came: crumbs must not keep whole buffers.
            data = bytes(data)
            self._parts.buffers.give_back(memoryview(buffer))
        if not data:
            self._source = None
            return False
        self.marks.received += count
        self._taken += count + _MESSAGE_COST
        self._queue.append(data)
        return True

    def _next_piece(self, most: int) -> Piece:
        """Take from the queue what is written at once: some messages, or a single larger one."""
        piece = Piece([])
        while self._queue and (not piece.chunks or piece.size + len(self._queue[0]) <= most):
            piece.chunks.append(self._queue.popleft())
            piece.size += len(piece.chunks[-1])
        piece.cost = piece.size + _MESSAGE_COST * len(piece.chunks)
        return piece

    async def _make_ready(self) -> None:
        """All is written: have it hashed and synced, both at once; not recorded, since `complete` does that."""
        if self._syncer.may_start and self.marks.synced < self.marks.written:
            self._syncer.start()
        self._hash_on()
        if self._side_work():
            await self.ending.change()
        else:
            self._ready = True
            self.ending.changed()

    async def _end_well(self) -> None:
        """Make durable what came, if it is still this stream's to record."""
        await self._wait_side_work()
        if self._settled or self.ending.dead or self._withheld:
            return
        self._syncer.recording = True
        if self.marks.durable < self.marks.written or self._disowned:
            await self._syncer.start()

    async def _release(self) -> None:
        self._queue.clear()
        self._syncer.disarm()
        if self._company is not None:
            self._company.cancel()
        await self._wait_side_work()
        self._parts.memory.hold(-self._pending)
        self._taken = self._pending = 0
        try:
            await self._parts.wait(self._let_go, self.marks.durable if self.ending.refused else None)
        except SinkError as error:
            # Bytes that had to be durable were synced before: a failed close can only lose some that were given up.
            log.warning("upload file did not close cleanly", file_id=self.file.file_id, error=repr(error))
        if isinstance(self.ending.cause, UploadCancelled):
            self._parts.observer.stream_stopped(max(0.0, self._last_write - self.ending.stopped_at))
        self._ended = True
        self.ending.news()

    def _let_go(self, counted: int | None) -> None:
        """Close the file, and delete what lies there behind ``counted`` bytes; runs on a thread."""
        try:
            if counted is not None:
                self._sink_file.discard(counted)
        finally:
            self._sink_file.close()

    def _side_work(self) -> list[asyncio.Future[None]]:
        return [work for work in (self._syncer.running, self._hashing) if work is not None]

    async def _wait_side_work(self) -> None:
        while work := self._side_work():
            await asyncio.wait(work)

    # The digest ----------------------------------------------------------------------------------------------------

    def _hash_on(self) -> None:
        """Hash what is written, a resumed file's first part too, beside the writing and in turn with other streams."""
        if self._hashing is None and self._digest.can_go_on and not self._digest_unwanted():
            # What comes over the network is waited for, not worked for.
            waits = self._parts.sink.buffers and self._digest.reads_back
            hop = self._parts.wait if waits else self._parts.hop
            most = _READ_BACK_BYTES if waits else self._hop_bytes()
            self._hashing = hop(self._digest.go_on, most, self._digest_unwanted)
            self._hashing.add_done_callback(self._on_hashed)

    def _on_hashed(self, hashing: asyncio.Future[None]) -> None:
        self._hashing = None
        if not hashing.cancelled() and (error := hashing.exception()) is not None:
            self.ending.fail(error if isinstance(error, Exception) else RuntimeError(error))
        self._account()
        self._hash_on()
        self.ending.changed()

    def _digest_unwanted(self) -> bool:
        """Whether no commit can come any more; threads ask this between two reads."""
        return self.ending.dead or self.ending.cause is not None or self._closing

    def _on_synced(self) -> None:
        """The sink has let go of bytes, and they can be read back."""
        self._account()
        self._hash_on()

    # Bookkeeping ---------------------------------------------------------------------------------------------------

    def _account(self) -> None:
        """Have `Memory` count what is in memory by now."""
        pending = self._held()
        self._parts.memory.hold(pending - self._pending)
        self._pending = pending

    def _held(self) -> int:
        """What is in memory: what is not hashed, and what the sink keeps there until it is synced."""
        held = self._taken - self._digest.released
        return held + self.marks.written - self.marks.synced if self._parts.sink.buffers else held

    def _allowance(self) -> int:
        """Bytes this stream may hold: none while memory is short, then each waits for its own write."""
        return 0 if self._parts.memory.is_crowded() else self._parts.limits.buffer_bytes
