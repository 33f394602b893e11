"""Decides what the sender of one file may do: bytes up to the announced size, then a commit that its digest must match.

Must not know how bytes get to the disk, nor through which door they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.errors import ChecksumMismatch, SizeExceeded, Stopped, UploadIncomplete
from upload_server.domain.states import FailureReason, File
from upload_server.ingest.ending import Ending
from upload_server.ingest.parts import Parts
from upload_server.ingest.stream import Source, Stream
from upload_server.sink.protocol import Chunk, SinkError, SinkFile
from upload_server.store.values import Claim, Command, Result

log = structlog.get_logger(__name__)


class Upload(Stream):
    """One open stream of bytes into one file; made by ``Ingest.open``, closed by ``close``. For one sender at a time.

    ``file`` is the file as claimed (its ``fence`` is this stream's), and after ``commit`` as completed.
    """

    def __init__(self, parts: Parts, claim: Claim, sink_file: SinkFile, ending: Ending, caller: Caller) -> None:
        super().__init__(parts, claim, sink_file, ending, caller.source.value)
        # Whoever opened it: it ends when they may not go on.
        self.caller = caller
        self._expected_sha256 = claim.expected_sha256
        self._finishing: asyncio.Task[File] | None = None

    async def write(self, data: Chunk) -> None:
        """Take the next bytes; awaits while too much is buffered (back-pressure).

        ``data`` must not be changed afterwards. Raises the cause of a stop, ``SizeExceeded`` (dropped whole),
        ``StorageFailure`` or ``DatabaseFailure``.
        Cancelled while it waits, the bytes are taken all the same.
        """
        self._check_open()
        if self.marks.received + len(data) > self.file.size_bytes:
            raise SizeExceeded(self.file.file_id, self.marks.received, self.file.size_bytes)
        if data:
            await self._take(data)

    async def write_from(self, source: Source) -> None:
        """Take the next bytes from ``source`` until it has none; raises what ``write`` raises."""
        self._check_open()
        if self.marks.received + source.left > self.file.size_bytes:
            raise SizeExceeded(self.file.file_id, self.marks.received, self.file.size_bytes)
        await self._draw(source)

    async def commit(self, sha256: str, caller: Caller) -> File:
        """Complete the file; returns it. ``sha256`` is empty or what its bytes must have, in hex.

        Raises ``UploadIncomplete`` (nothing changed), ``ChecksumMismatch`` (the file is failed), the cause of a stop
        (also when a cancel wins at the last moment), ``StorageFailure``, ``DatabaseFailure``, ``OutcomeUnknown``.
        Once the last write has begun it is carried out even if the caller leaves.
        """
        self._check_open()
        if self.marks.received < self.file.size_bytes:
            raise UploadIncomplete(self.file.file_id, self.marks.received, self.file.size_bytes)
        actual = await self._finalise()
        wanted = (self._expected_sha256.lower(), sha256.lower())
        wrong = next((one for one in wanted if one and one != actual), None)
        work = self._complete(actual, caller) if wrong is None else self._fail(wrong, actual, caller)
        self._finishing = self._parts.tasks.spawn(work)
        # When the caller has left, nobody else asks for its error.
        self._finishing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._finishing)

    async def close(self) -> None:
        """Sync and record what came (unless stopped by a cancel or a take-over), release the file. Safe to call twice.

        Waits a bounded time; the file is released even if the caller leaves.
        """
        if self._finishing is not None:
            # A file may become completed under a closing stream: that write decides first.
            await asyncio.wait([self._finishing], timeout=self._parts.limits.close_seconds)
        self.close_soon()
        try:
            async with asyncio.timeout(self._parts.limits.close_seconds):
                await self.wait_ended()
        except TimeoutError:
            log.warning("an upload's last bytes are slow to reach the disk", file_id=self.file.file_id)

    async def _complete(self, sha256: str, caller: Caller) -> File:
        if len(self._runs) > 1 or self._parts.sink.assembles:
            await self._assemble()
        file, command = self.file, Command(caller, "UploadFile", self._parts.clock())
        # A run that is not the first claim's follows others.
        leaves_bytes = file.run_fence > 1 or self._parts.sink.assembles
        write = self._parts.store.complete(
            file.file_id, file.fence, sha256, file.size_bytes, command, leaves_bytes=leaves_bytes
        )
        return await self._carry_out(write, completed=True)

    async def _assemble(self) -> None:
        """Have the sink make the file whole, once all its bytes are recorded: it may take long, or fail half-way."""
        if self.marks.durable < self.marks.written:
            self._syncer.recording = True
            await self._syncer.start()
            self._syncer.recording = False
            self.ending.check()
        try:
            await self._parts.wait(
                self._parts.sink.finish, self.file.file_id, self._runs, self.file.size_bytes, self._is_stopped
            )
        except SinkError as error:
            if not self._is_stopped():
                self.ending.fail(error)
        self.ending.check()

    def _is_stopped(self) -> bool:
        return self.ending.dead or self.ending.cause is not None

    async def _fail(self, expected: str, actual: str, caller: Caller) -> File:
        file, failure = self.file, FailureReason.CHECKSUM_MISMATCH
        command = Command(caller, "UploadFile", self._parts.clock(), failure.value)
        await self._carry_out(self._parts.store.fail(file.file_id, file.fence, failure, command), completed=False)
        raise ChecksumMismatch(file.file_id, expected, actual)

    async def _carry_out(self, write: Coroutine[object, object, Result[File]], *, completed: bool) -> File:
        """Carry out the last write of this upload; raises what came before it."""
        try:
            result = await write
        except Stopped as cause:
            self.ending.refused = True
            self.ending.stop(cause)
            raise
        self.file = result.answer
        self._settle(completed=completed)
        return result.answer
