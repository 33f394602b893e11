"""Decides which uploads are open on this node: one writer a file, and who hears that a file was cancelled.

Must not know what a stream does with its bytes, nor through which door it came.

Lock order: a file's slot lock is taken before anything else and held from the claim until the file is open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.errors import (
    CutOff,
    FileNotWritable,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    Stopped,
    StorageFailure,
    UploadCancelled,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import AuditEvent, File, FileStatus, cancelled
from upload_server.ingest.content import Content
from upload_server.ingest.drafts import Draft, Drafts
from upload_server.ingest.ending import Ending, Marks, storage_error
from upload_server.ingest.parts import Buffers, Holds, Limits, Memory, Parts, Tasks, Threads
from upload_server.ingest.upload import Upload
from upload_server.sink.protocol import Chunk, NoRoom, Sink, SinkError, SinkFile
from upload_server.store.protocol import Store
from upload_server.store.values import Claim, Command, Result

log = structlog.get_logger(__name__)

# Runs that are remembered, so that a stream goes on with one and the next: a few hundred bytes each.
_MOST_BEGUN = 4096


@dataclass(slots=True)
class _Opening:
    """A stream to come; ``file`` is None until the claim's answer."""

    ending: Ending
    caller: Caller
    file: File | None = None


@dataclass(slots=True)
class _Slot:
    """One file that is open or being opened here; it lives as long as anything here can touch the file's bytes."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    current: Upload | None = None
    opening: _Opening | None = None
    # Cancels that came before the claim's answer: the claim may have committed first.
    missed: list[AuditEvent] = field(default_factory=list)
    users: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, cancel: AuditEvent) -> None:
        """Stop its streams if the cancel is about the file, which is left out of its batch's if it was final first."""
        for stream in (self.current, self.opening):
            if stream is None:
                continue
            if (file := stream.file) is None:
                self.missed.append(cancel)
            elif cancel.file_id == file.file_id or (
                not cancel.file_id and cancel.batch_id == file.batch_id and not file.status.final
            ):
                stream.ending.stop(UploadCancelled(cancelled(file, cancel)))

    def end_stream(self, file: File, fence: int) -> bool:
        """End the stream with ``fence`` as its file's row says; False while a claim has no answer: perhaps that one."""
        for stream in (self.current, self.opening):
            if stream is not None and stream.file is not None and stream.file.fence == fence:
                stream.ending.end_as(file)
                return True
        return self.opening is None or self.opening.file is not None


class Ingest:
    """Opens uploads, and knows those that are open on this node. Lives on one event loop; end it with ``aclose``.

    ``clock`` gives UTC cut to microseconds. ``on_progress`` hears (file_id, batch_id, owner, durable bytes) after each
    record,
    on the event loop; it must not block or raise.
    """

    def __init__(
        self,
        store: Store,
        sink: Sink,
        *,
        clock: Callable[[], datetime],
        limits: Limits | None = None,
        threads: Threads | None = None,
        on_progress: Callable[[str, str, str, int], None],
        observer: Observer,
    ) -> None:
        limits = limits or Limits()
        if sink.buffers:
            limits = limits.buffered()
        # All streams together keep within it; a door counts there what it reads ahead for them.
        self.memory = Memory(limits.total_buffer_bytes)
        # The service holds a file or a batch there while its cancel is being decided.
        self.holds = Holds()
        self._parts = Parts(
            store=store,
            sink=sink,
            clock=clock,
            threads=threads or Threads(waiters=limits.waiters),
            limits=limits,
            observer=observer,
            on_progress=on_progress,
            tasks=Tasks(),
            memory=self.memory,
            buffers=Buffers(limits.piece_bytes),
            holds=self.holds,
        )
        self._slots: dict[str, _Slot] = {}
        # Fences of runs that were begun here, by file, the oldest first: a later stream goes on with one, since nobody
        # else ever writes to it.
        self._begun: dict[str, int] = {}
        self._drafts = Drafts(self._parts)
        # Files whose streams have ended while the database was away, and their fences.
        self._unreleased: dict[str, int] = {}
        self._refusal: Stopped | None = None

    # For the doors -------------------------------------------------------------------------------------------------

    def content(self, file: File, read_again: Callable[[], Awaitable[File]]) -> Content:
        """Return the bytes of a completed file, to be read; ``read_again`` reads its row as it is then."""
        return Content(self._parts.sink, self._parts.threads.readers, file, read_again)

    async def open(self, file_id: str, offset: int, caller: Caller, *, may_overlap: bool = False) -> Upload:
        """Claim a file and open it for writing at ``offset``; an older stream on it is replaced.

        With ``may_overlap`` nothing is lost that the older stream has received: the upload begins behind ``offset``
        then, and its sender's first bytes, up to where it begins, are not to be written.
        Raises ``Overloaded`` (nothing is claimed), ``FileNotFound``, ``FileNotWritable``, ``OffsetMismatch``,
        ``UploadCancelled`` (cancelled just after the claim), ``WriterReplaced``, ``ShuttingDown``, ``StorageFailure``,
        ``StorageFull``, ``DatabaseFailure``, ``OutcomeUnknown``.
        """
        task = self._parts.tasks.spawn(self._open(file_id, offset, caller, may_overlap=may_overlap))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Nobody is left to use it.
            task.add_done_callback(_close_unused)
            raise

    async def put_announced(self, file_id: str, data: Chunk, sha256: str, caller: Caller) -> File | None:
        """Complete a pending file whose bytes all came at once, with one write; a stream's work, done in one.

        None, and nothing has changed, when that cannot be: ``open`` then tells why, or takes the bytes. ``sha256`` is
        empty or what they must have. Raises ``UploadCancelled`` (in between), ``OutcomeUnknown``. It goes on when its
        caller has left.
        """
        return await self._parts.tasks.shielded(self._put_announced(file_id, data, sha256, caller))

    async def _put_announced(self, file_id: str, data: Chunk, sha256: str, caller: Caller) -> File | None:
        async def write(draft: Draft) -> Result[File]:
            if draft.lost is not None:
                raise draft.lost
            command = Command(caller, "UploadFile", self._parts.clock())
            return await self._parts.store.complete_whole(file_id, draft.sha256, len(data), command, draft.alive)

        async with self._slot(file_id):
            try:
                # Nobody who names another file shall have the disk work.
                file = await self._parts.store.get_file(file_id, caller.sees)
                is_next = file.status is FileStatus.PENDING and file.size_bytes == len(data)
                if self._refusal is not None or not is_next or self.holds.covers(file):
                    return None
                return await self._drafts.put(file_id, data, sha256, write)
            except OutcomeUnknown:
                raise
            except UploadError as error:
                if isinstance(error, FileNotWritable) and error.file.status is FileStatus.CANCELLED:
                    # It was pending when this sender came.
                    raise UploadCancelled(error.file) from None
                log.debug("a file takes a stream", file_id=file_id, reason=error.reason)
                return None

    # For the service -----------------------------------------------------------------------------------------------

    async def put(
        self, file_id: str, data: Chunk, expected_sha256: str, write: Callable[[Draft], Awaitable[Result[File]]]
    ) -> File:
        """Store a file that comes whole, then have ``write`` make its row. It goes on when its caller has left.

        Raises ``ShuttingDown``, ``Overloaded``, ``InvalidField`` when its digest is another one than expected, what
        ``write`` raises.
        """
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        return await self._parts.tasks.shielded(self._drafts.put(file_id, data, expected_sha256, write))

    def stop(self, cancel: AuditEvent) -> None:
        """Stop the open streams that a committed cancel is about: of its file, or of its batch's files."""
        if not cancel.file_id:
            for slot in self._slots.values():
                slot.stop(cancel)
        elif (slot_of_file := self._slots.get(cancel.file_id)) is not None:
            slot_of_file.stop(cancel)

    def end_stream(self, file: File, fence: int) -> bool:
        """End a stream because of what another node has committed about its file; False: not yet known here, ask again.

        ``file`` is as its row is now.
        """
        slot = self._slots.get(file.file_id)
        return slot is None or slot.end_stream(file, fence)

    def stop_all(self, cause: Stopped) -> None:
        """End every stream for a reason that is none of the files': what they received is still made durable."""
        for slot in self._slots.values():
            if slot.current is not None:
                slot.current.ending.stop(cause)
            if slot.opening is not None:
                slot.opening.ending.stop(cause)

    def end_where(self, verdict: Callable[[Caller], Stopped | None]) -> None:
        """End the streams of callers who may not go on, as ``verdict`` says; what they received stays durable."""
        for slot in self._slots.values():
            for stream in (slot.current, slot.opening):
                if stream is not None and (cause := verdict(stream.caller)) is not None:
                    stream.ending.stop(cause)

    async def aclose(self) -> None:
        """Refuse new streams, end all with ``ShuttingDown``, wait (bounded) until their bytes are durable."""
        self._refusal = ShuttingDown()
        self.stop_all(self._refusal)
        hanging = await self._parts.tasks.join(self._parts.limits.takeover_seconds)
        if hanging:
            log.error("storage or database hang: streams are left behind", tasks=hanging)
        else:
            await self._drafts.close()
        self._parts.threads.shutdown(wait=not hanging)

    # For the janitor and the metrics -------------------------------------------------------------------------------

    def is_open(self, file_id: str) -> bool:
        """Whether somebody on this node can still touch the file's bytes, or is about to: a stream, or whoever brings a
        file whole."""
        return file_id in self._slots or file_id in self._drafts

    def open_file_ids(self) -> tuple[str, ...]:
        """Ids of the files that streams have open, or are about to."""
        return tuple(self._slots)

    @property
    def open_count(self) -> int:
        """How many those are."""
        return len(self._slots)

    async def wait_closed(self, file_id: str) -> None:
        """Wait until no stream has this file open."""
        while (slot := self._slots.get(file_id)) is not None:
            await slot.gone.wait()

    # Opening -------------------------------------------------------------------------------------------------------

    async def _open(self, file_id: str, offset: int, caller: Caller, *, may_overlap: bool) -> Upload:
        async with self._slot(file_id) as slot:
            if self._refusal is not None:
                raise self._refusal.with_traceback(None)
            if not self._parts.store.lives:
                raise CutOff
            if may_overlap and slot.current is not None and slot.current.durable == offset:
                async with slot.current.settled() as durable:
                    return await self._begin(slot, file_id, durable, caller)
            return await self._begin(slot, file_id, offset, caller)

    @contextlib.asynccontextmanager
    async def _slot(self, file_id: str) -> AsyncIterator[_Slot]:
        """Hold a file's slot, locked; raises ``Overloaded``."""
        if file_id not in self._slots and len(self._slots) >= self._parts.limits.open_files:
            raise Overloaded("Too many uploads at once", 1.0)
        slot = self._slots.setdefault(file_id, _Slot())
        slot.users += 1
        try:
            async with slot.lock:
                yield slot
        finally:
            slot.users -= 1
            self._tidy(file_id, slot)

    async def _begin(self, slot: _Slot, file_id: str, offset: int, caller: Caller) -> Upload:
        slot.opening = opening = _Opening(Ending(file_id, Marks(offset, offset, offset, offset)), caller)
        try:
            return await self._claim(slot, opening, file_id, offset, caller)
        finally:
            slot.opening = None
            slot.missed.clear()

    async def _claim(self, slot: _Slot, opening: _Opening, file_id: str, offset: int, caller: Caller) -> Upload:
        command = Command(caller, "UploadFile", self._parts.clock())
        continues = self._begun.get(file_id) if self._parts.sink.continues else None
        claim = (await self._parts.store.claim(file_id, offset, command, continues)).answer
        opening.file = claim.file
        self._remember(claim.file)
        try:
            return await self._open_claimed(slot, opening, claim, offset, caller)
        except BaseException:
            self._parts.tasks.spawn(self._let_go(claim.file))
            raise

    async def _open_claimed(self, slot: _Slot, opening: _Opening, claim: Claim, offset: int, caller: Caller) -> Upload:
        file_id = claim.file.file_id
        for cancel in slot.missed:
            slot.stop(cancel)
        if slot.current is not None:
            slot.current.ending.stop(WriterReplaced(file_id))
            await self._wait_released(slot.current, file_id)
        opening.ending.check()
        sink_file = await self._open_bytes(claim, offset)
        slot.current = upload = Upload(self._parts, claim, sink_file, opening.ending, caller)
        self._parts.tasks.spawn(self._run(upload, slot))
        return upload

    async def _wait_released(self, old: Upload, file_id: str) -> None:
        try:
            async with asyncio.timeout(self._parts.limits.takeover_seconds):
                await old.wait_ended()
        except TimeoutError:
            # A write that hangs in the kernel cannot be called off: two writers would mix their bytes.
            log.warning("a replaced stream does not let go of its file", file_id=file_id)
            raise StorageFailure from None

    def _remember(self, file: File) -> None:
        """Remember which run of the file a later stream may go on with; the oldest is forgotten."""
        self._begun.pop(file.file_id, None)
        while len(self._begun) >= _MOST_BEGUN:
            del self._begun[next(iter(self._begun))]
        self._begun[file.file_id] = file.run_fence

    async def _open_bytes(self, claim: Claim, offset: int) -> SinkFile:
        file = claim.file
        try:
            return await self._parts.wait(self._parts.sink.open, file.file_id, claim.runs, file.size_bytes, offset)
        except SinkError as error:
            # A full disk says so of each upload that it refuses: a traceback for each would help to fill it.
            write = log.warning if isinstance(error, NoRoom) else log.exception
            write("storage failed to open a file", file_id=file.file_id, error=repr(error), offset=offset)
            raise storage_error(error) from error

    async def _run(self, upload: Upload, slot: _Slot) -> None:
        self._parts.observer.upload_opened()
        try:
            await upload.run()
        finally:
            self._parts.observer.upload_closed()
            if slot.current is upload:
                slot.current = None
            if upload.is_over:
                self._begun.pop(upload.file.file_id, None)
            self._tidy(upload.file.file_id, slot)
            if not upload.file.status.final:
                await self._let_go(upload.file)

    async def _let_go(self, file: File) -> None:
        """Have other nodes hear that this one has a file open no more."""
        try:
            await self._parts.store.release(file.file_id, file.fence)
        except UploadError as error:
            # Until they hear it they take it for open: it is not expired, and its bytes wait.
            self._unreleased[file.file_id] = file.fence
            log.warning("a file is not released yet", file_id=file.file_id, reason=error.reason)

    async def release_left(self) -> None:
        """Have other nodes hear what could not be told when streams ended; raises what the store raises."""
        for file_id, fence in list(self._unreleased.items()):
            await self._parts.store.release(file_id, fence)
            if self._unreleased.get(file_id) == fence:
                del self._unreleased[file_id]

    def _tidy(self, file_id: str, slot: _Slot) -> None:
        if slot.current is None and not slot.users and self._slots.get(file_id) is slot:
            del self._slots[file_id]
            slot.gone.set()


def _close_unused(task: asyncio.Task[Upload]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close_soon()
