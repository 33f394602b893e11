"""Decides how the bytes of one file get to the server: chunks, resuming, hearing that it was cancelled.

Must not know where the bytes come from, nor on what loop it runs.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from grpc import StatusCode

from upload import errors, statuses
from upload.retry import Backoff, upload_resumable
from upload.sources import Feed
from upload.transport import Transport
from upload.v1 import upload_pb2 as pb

# The size at which grpc.aio moves most bytes a second.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far an upload is: ``bytes_received`` are durable on the server, ``bytes_sent`` left this process."""

    file_id: str
    bytes_received: int
    bytes_sent: int
    size_bytes: int


OnProgress = Callable[[TransferProgress], None]


class Sender:
    """One stream's requests: header, data from ``offset`` on, commit. It never raises: see ``problem``."""

    def __init__(self, file_id: str, offset: int, feed: Feed) -> None:
        self._file_id = file_id
        self._feed = feed
        self.position = offset
        # Set when the server said stop: the stream then ends at once, and the server's status can be heard. (An
        # Event, since the blocking driver sets it from another thread.)
        self.halted = threading.Event()
        # Why the stream ended without a commit, if that was our doing.
        self.problem: Exception | None = None

    async def requests(self) -> AsyncIterator[pb.UploadFileRequest]:
        """Make the stream's messages."""
        try:
            yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=self._file_id, offset=self.position))
            while self.position < self._feed.size and not self.halted.is_set():
                block = await self._feed.block(self.position)
                for start in range(0, len(block), CHUNK_BYTES):
                    if self.halted.is_set():
                        return
                    chunk = block[start : start + CHUNK_BYTES]
                    yield pb.UploadFileRequest(data=chunk)
                    self.position += len(chunk)
            if not self.halted.is_set():
                yield pb.UploadFileRequest(commit=pb.UploadCommit(sha256=await self._feed.finish()))
        except Exception as error:  # noqa: BLE001 - an iterator may raise anything; who reads the answers raises it again
            # The end without a commit keeps the file resumable; gRPC would turn a raise into a cancelled call.
            self.problem = error


class Sending:
    """Sends one file until it is final or cannot go on."""

    def __init__(
        self,
        transport: Transport,
        feed: Feed,
        get_file: Callable[[str], Awaitable[pb.File]],
        on_progress: OnProgress | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._transport = transport
        self._feed = feed
        self._get_file = get_file
        self._on_progress = on_progress
        self._backoff = backoff or Backoff()

    async def send(self, file: pb.File) -> pb.File:
        """Return the completed file. Raises ``UploadCancelled``, ``UploadFailed``, ``WriterReplaced``, ...

        Every error carries ``file_id`` in its metadata: what is not final can be resumed with it.
        """
        try:
            while True:
                self._report(file, file.bytes_received)
                try:
                    return await self._stream(file)
                except errors.UploadServiceError as error:
                    file = await self._after(error, file)
                if statuses.is_final(file.status):
                    return verdict(file)
        except errors.UploadServiceError as error:
            error.metadata.setdefault("file_id", file.file_id)
            raise

    async def _after(self, error: errors.UploadServiceError, before: pb.File) -> pb.File:
        """Wait, and ask what is true; raises ``error`` when there is no point in going on."""
        if not upload_resumable(error):
            raise error
        while True:
            delay = self._backoff.next(error.retry_after)
            if delay is None:
                raise error
            await self._transport.sleep(delay)
            try:
                file = await self._get_file(before.file_id)
            except errors.UploadServiceError as failure:
                if not upload_resumable(failure):
                    raise
                error = failure
                continue
            if file.bytes_received > before.bytes_received:
                self._backoff.reset()
            return file

    async def _stream(self, file: pb.File) -> pb.File:
        # Before the stream opens: hashing a long prefix must not make it idle.
        await self._feed.skip_to(file.bytes_received)
        sender = Sender(file.file_id, file.bytes_received, self._feed)
        stopped: pb.UploadStopped | None = None
        completed: pb.File | None = None
        try:
            async with aclosing(self._transport.upload(sender.requests())) as responses:
                async for response in responses:
                    match response.WhichOneof("message"):
                        case "completed":
                            completed = response.completed
                        case "stopped":
                            stopped = response.stopped
                            sender.halted.set()
                        case "progress":
                            self._durable(file, response.progress.bytes_received, sender)
        except errors.UploadServiceError:
            # What was said before the end counts for more than how the connection ended.
            if completed is None and stopped is None and sender.problem is None:
                raise
        finally:
            sender.halted.set()
        if completed is not None:
            self._report(completed, sender.position)
            return completed
        if stopped is not None:
            raise statuses.upload_stopped(file.file_id, stopped)
        if sender.problem is not None:
            sender.problem.add_note(f"upload {file.file_id} can be resumed or cancelled")
            raise sender.problem
        raise errors.ServerUnreachable("The upload stream ended before the upload did", code=StatusCode.UNAVAILABLE)

    def _durable(self, file: pb.File, bytes_received: int, sender: Sender) -> None:
        if bytes_received > file.bytes_received:
            file.bytes_received = bytes_received
            self._backoff.reset()
        self._feed.forget(bytes_received)
        self._report(file, sender.position)

    def _report(self, file: pb.File, bytes_sent: int) -> None:
        if self._on_progress is not None:
            self._on_progress(TransferProgress(file.file_id, file.bytes_received, bytes_sent, self._feed.size))


def verdict(file: pb.File) -> pb.File:
    """Return a completed file; raises what a failed or cancelled one means."""
    if file.status == pb.UPLOAD_STATUS_CANCELLED:
        raise statuses.upload_cancelled(file)
    if file.status == pb.UPLOAD_STATUS_FAILED:
        raise statuses.upload_failed(file)
    return file
