"""Decides what the sender of one file may do: bytes up to the announced size, then a commit that its digest must match.

Must not know how bytes get to the disk, nor through which door they come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

import structlog

from upload_server.domain.errors import ChecksumMismatch, SizeExceeded, Stopped, UploadIncomplete
from upload_server.domain.states import Caller, FailureReason, File
from upload_server.ingest.parts import Parts
from upload_server.ingest.signal import StopSignal
from upload_server.ingest.stream import Stream
from upload_server.sink.protocol import Chunk
from upload_server.store.protocol import Claim, Command, Result

log = structlog.get_logger(__name__)


class Upload:
    """One open stream of bytes into one file; made by ``Ingest.open``, closed by ``close``. For one sender at a time.

    ``file`` is the file as claimed (its ``fence`` is this stream's), and after ``commit`` as completed.
    """

    def __init__(self, parts: Parts, claim: Claim, stream: Stream, stop: StopSignal) -> None:
        self.file: File = claim.file
        self.stop = stop
        self._parts = parts
        self._claim = claim
        self._stream = stream
        self._finishing: asyncio.Task[File] | None = None

    @property
    def durable(self) -> int:
        """Bytes that are synced and recorded in the row; never shrinks."""
        return self._stream.marks.durable

    @property
    def received(self) -> int:
        """Bytes that were taken, from the start of the file; those above ``durable`` can still be lost."""
        return self._stream.marks.received

    async def wait_durable(self, above: int) -> int:
        """Wait until ``durable`` is greater than ``above`` and return it.

        What it returns is not greater only when the upload has been closed or completed. Raises what ended the stream:
        the stop signal's cause, ``StorageFailure``, ``DatabaseFailure``, ...
        """
        return await self._stream.wait_durable(above)

    def on_news(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called on the event loop when ``durable`` has grown and when the stream has to end.

        It must not block or raise. What ended the stream is then raised by ``check``.
        """
        self._stream.on_news(listener)

    def check(self) -> None:
        """Raise what ended the stream, if something did: the stop signal's cause, ``StorageFailure``, ..."""
        self._stream.check()

    async def write(self, data: Chunk) -> None:
        """Take the next bytes; awaits while too much is buffered (back-pressure).

        ``data`` must not be changed afterwards. Raises the stop signal's cause, ``SizeExceeded`` (dropped whole),
        ``StorageFailure`` or ``DatabaseFailure``.
        Cancelled while it waits, the bytes are taken all the same.
        """
        stream = self._stream
        stream.check_open()
        if stream.marks.received + len(data) > self.file.size_bytes:
            raise SizeExceeded(self.file.file_id, stream.marks.received, self.file.size_bytes)
        if data:
            stream.put(data)
            await stream.room()

    def withhold(self) -> None:
        """Let nothing that is written from now on become durable until ``release``.

        For bytes that have to be judged first: closed before that, the stream leaves the file as if none had come.
        """
        self._stream.withhold(withheld=True)

    def release(self) -> None:
        """The bytes are good: they become durable like any others."""
        self._stream.withhold(withheld=False)

    async def commit(self, sha256: str, caller: Caller) -> File:
        """Complete the file; returns it. ``sha256`` is empty or what its bytes must have, in hex.

        Raises ``UploadIncomplete`` (nothing changed), ``ChecksumMismatch`` (the file is failed), the
        stop signal's cause (also when a cancel wins at the last moment), ``StorageFailure``, ``DatabaseFailure``,
        ``OutcomeUnknown``. Once the last write has begun it is carried out even if the caller leaves.
        """
        self._stream.check_open()
        if self._stream.marks.received < self.file.size_bytes:
            raise UploadIncomplete(self.file.file_id, self._stream.marks.received, self.file.size_bytes)
        actual = await self._stream.finalise()
        wanted = (self._claim.expected_sha256.lower(), sha256.lower())
        wrong = next((one for one in wanted if one and one != actual), None)
        work = self._complete(actual, caller) if wrong is None else self._fail(wrong, actual, caller)
        self._finishing = self._parts.tasks.spawn(work)
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
                await self._stream.wait_ended()
        except TimeoutError:
            log.warning("an upload's last bytes are slow to reach the disk", file_id=self.file.file_id)

    def close_soon(self) -> None:
        """Begin to close, without waiting."""
        self._stream.close()

    async def wait_ended(self) -> None:
        """Wait until nothing of this upload touches the disk any more."""
        await self._stream.wait_ended()

    async def _complete(self, sha256: str, caller: Caller) -> File:
        file, command = self.file, Command(caller, "UploadFile", self._parts.clock())
        write = self._parts.store.complete(file.file_id, file.fence, sha256, file.size_bytes, command)
        return await self._settle(write, completed=True)

    async def _fail(self, expected: str, actual: str, caller: Caller) -> File:
        file, failure = self.file, FailureReason.CHECKSUM_MISMATCH
        command = Command(caller, "UploadFile", self._parts.clock(), failure.value)
        await self._settle(self._parts.store.fail(file.file_id, file.fence, failure, command), completed=False)
        self._parts.on_owed()
        raise ChecksumMismatch(file.file_id, expected, actual)

    async def _settle(self, write: Coroutine[object, object, Result[File]], *, completed: bool) -> File:
        """Carry out the last write of this upload; raises what came before it."""
        asked_at = time.monotonic()
        try:
            result = await write
        except Stopped as cause:
            self.stop.set(cause)
            raise
        self._parts.on_changed(result.audited, time.monotonic() - asked_at)
        self.file = result.answer
        self._stream.settle(completed=completed)
        return result.answer
