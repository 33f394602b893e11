"""Decides how the bytes of a completed file are read back: in blocks.

Must not know who asks for them, nor how they travel.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog

from upload_server.domain.errors import (
    ContentDeleted,
    FieldViolation,
    InvalidField,
    NotFound,
    ShuttingDown,
    StorageFailure,
    UploadError,
)
from upload_server.domain.runs import whole
from upload_server.domain.states import File
from upload_server.sink.protocol import Sink, SinkError

log = structlog.get_logger(__name__)

T = TypeVar("T")
# Of about so many bytes a sink makes a block. A reader holds two: a thread fetches one while the other is sent.
_BLOCK_BYTES: Final = 256 * 1024


class Content:
    """The bytes of ``file``, which is completed: they never change. They may be let go, and then reading may fail."""

    def __init__(self, sink: Sink, readers: Executor, file: File, read_again: Callable[[], Awaitable[File]]) -> None:
        """``read_again`` reads the file's row as it is then."""
        self.file = file
        self._read_again = read_again
        self._sink = sink
        self._readers = readers

    def in_thread(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Have a thread do what blocks on the bytes: none of those that uploads are written by."""
        try:
            return asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)
        except RuntimeError:
            # The grace of a drain is over, and the threads are gone.
            raise ShuttingDown from None

    def part(self, offset: int, length: int) -> range:
        """Return the bytes from ``offset`` on, ``length`` of them or as many as there are; 0 means all.

        Raises ``InvalidField``.
        """
        size = self.file.size_bytes
        if not 0 <= offset <= size:
            raise InvalidField([FieldViolation("offset", f"must be from 0 to the file's size, {size} bytes", size)])
        if length < 0:
            raise InvalidField([FieldViolation("length", "must be 0 or more")])
        return range(offset, min(size, offset + length) if length else size)

    async def descriptor(self) -> int | None:
        """Open the bytes for the kernel to send; None where they lie in no file of this machine.

        The caller closes it. Raises ``StorageFailure``, ``ContentDeleted``, ``FileNotFound``.
        """
        try:
            return await self.in_thread(self._sink.descriptor, self.file.file_id, self.file.run_fence)
        except SinkError as error:
            raise await self.failure(error) from error

    @asynccontextmanager
    async def blocks(self, start: int, end: int) -> AsyncIterator[Callable[[], bytes]]:
        """Open the bytes from ``start`` to ``end`` for one thread at a time, which takes a block with each call.

        At the end there is an empty one. Raises as ``descriptor``, also in their midst.
        """
        reading = self._sink.read(self.file.file_id, whole(self.file.run_fence), end, _BLOCK_BYTES, start)
        # A generator in which a thread still is cannot be closed: whoever is cancelled leaves one in it.
        entered = threading.Lock()

        def take() -> bytes:
            with entered:
                return next(reading, b"")

        def close() -> None:
            with entered:
                reading.close()

        try:
            yield take
        except SinkError as error:
            raise await self.failure(error) from error
        finally:
            await self.in_thread(close)

    async def ahead(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Give the blocks from ``start`` to ``end``; raises as ``descriptor``, also in their midst."""
        async with self.blocks(start, end) as take:
            taking = self.in_thread(take)
            try:
                while block := await taking:
                    taking = self.in_thread(take)
                    yield block
            finally:
                # Nobody asks for it any more, nor why it failed.
                taking.cancel()

    async def failure(self, error: Exception) -> UploadError:
        """Return what the caller hears when the bytes cannot be read: that they were let go, or else no more than that
        the storage failed, and the log says why."""
        try:
            file = await self._read_again()
        except NotFound as gone:
            return gone
        except UploadError:
            file = self.file
        if not file.has_content:
            return ContentDeleted(file)
        log.error("storage failed under a download", file_id=self.file.file_id, error=repr(error))
        return StorageFailure()
