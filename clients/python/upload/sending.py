"""Decides how the bytes of one file get to the server: chunks, resuming, the end by a cancel.

Must not know where the bytes come from, nor on what loop it runs.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from grpc import StatusCode

from upload import errors, statuses
from upload.retry import Backoff, status_lost, upload_resumable
from upload.sources import Feed
from upload.transport import Signal, Transport
from upload.v1 import upload_pb2 as pb

# The size at which grpc.aio moves most bytes a second.
CHUNK_BYTES = 256 * 1024
# While someone sends, the server records durable bytes at least once a second.
_RECORDED_SECONDS = 1.2
# Without an answer to the header the sender gives the stream up, and opens another one.
_OPEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far an upload is: ``bytes_received`` are durable on the server, ``bytes_sent`` left this process."""

    file_id: str
    bytes_received: int
    bytes_sent: int
    size_bytes: int


OnProgress = Callable[[TransferProgress], None]


class Stream:
    """One upload stream: what it sends (header, data from ``offset`` on, commit) and what the server answers.

    With ``opened`` data waits for the server's first answer. ``requests`` never raises: see ``problem``.
    """

    def __init__(self, file_id: str, offset: int, feed: Feed, opened: Signal | None) -> None:
        self._file_id = file_id
        self._feed = feed
        self._opened = opened
        # Events, since the blocking driver sends and receives in different threads.
        self._halted = threading.Event()
        self.position = offset
        # The commit is with gRPC; it may not have arrived.
        self.committed = False
        # Why the stream ended without a commit, if that was our doing.
        self.problem: Exception | None = None
        self.completed: pb.File | None = None
        self.stopped: pb.UploadStopped | None = None

    @property
    def is_decided(self) -> bool:
        """Whether the server's answers tell how the stream ended, whatever the connection's error."""
        return self.completed is not None or self.stopped is not None or self.problem is not None

    def hear(self, response: pb.UploadFileResponse) -> None:
        """Take an answer; ``stopped`` ends the sending at once."""
        if self._opened is not None:
            self._opened.set()
        match response.WhichOneof("message"):
            case "completed":
                self.completed = response.completed
            case "stopped":
                self.stopped = response.stopped
                self._halted.set()

    def end(self) -> None:
        """Send nothing more."""
        self._halted.set()
        if self._opened is not None:
            self._opened.set()

    async def requests(self) -> AsyncIterator[pb.UploadFileRequest]:
        """Make the stream's messages."""
        try:
            yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=self._file_id, offset=self.position))
            if self._opened is not None and not await self._opened.wait(_OPEN_SECONDS):
                return
            while self.position < self._feed.size and not self._halted.is_set():
                block = await self._feed.block(self.position)
                for start in range(0, len(block), CHUNK_BYTES):
                    if self._halted.is_set():
                        return
                    chunk = block[start : start + CHUNK_BYTES]
                    yield pb.UploadFileRequest(data=chunk)
                    self.position += len(chunk)
            if not self._halted.is_set():
                sha256 = await self._feed.finish()
                self.committed = True
                yield pb.UploadFileRequest(commit=pb.UploadCommit(sha256=sha256))
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
        self._committed = False

    async def send(self, file: pb.File) -> pb.File:
        """Return the completed file. Raises ``UploadCancelled``, ``UploadFailed``, ``WriterReplaced``, ...

        Every error carries ``file_id`` in its metadata, which resumes a file that is not final.
        """
        try:
            while True:
                self._report(file, file.bytes_received)
                try:
                    return await self._stream(file)
                except errors.UploadServiceError as error:
                    file = await self._after(error, file)
                if statuses.is_final(file.status):
                    return self._found_final(file)
        except errors.UploadServiceError as error:
            error.metadata.setdefault("file_id", file.file_id)
            raise

    async def _after(self, error: errors.UploadServiceError, before: pb.File) -> pb.File:
        """Wait, and ask for the file's state; raises ``error`` when going on has no point."""
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
            if status_lost(error) and await self._someone_else_sends(file):
                raise errors.WriterReplaced("Another sender took this file over", code=StatusCode.ABORTED) from error
            if file.bytes_received > before.bytes_received and not isinstance(error, errors.OffsetMismatch):
                self._backoff.reset()
            return file

    async def _someone_else_sends(self, file: pb.File) -> bool:
        """Whether another sender makes the file grow: looks twice, since our own stream may record once more."""
        for _ in range(2):
            seen = file.bytes_received
            await self._transport.sleep(_RECORDED_SECONDS)
            file.CopyFrom(await self._get_file(file.file_id))
            if statuses.is_final(file.status) or file.bytes_received == seen:
                return False
        return True

    def _found_final(self, file: pb.File) -> pb.File:
        """Return the completed file, or raise what its final state means: our stream's end did not tell."""
        if verdict(file) and not self._committed:
            raise errors.WriterReplaced(
                "Another sender completed this file", code=StatusCode.ABORTED, metadata={"status": "completed"}
            )
        return file

    async def _stream(self, file: pb.File) -> pb.File:
        # Before the stream opens: hashing a long prefix must not make it idle.
        await self._feed.skip_to(file.bytes_received)
        # The server may refuse a file that was opened before (another offset by now, cancelled). Only a sender that
        # does not write at that moment hears it for certain; a new file costs no such pause.
        opened = None if file.status == pb.UPLOAD_STATUS_PENDING else self._transport.signal()
        stream = Stream(file.file_id, file.bytes_received, self._feed, opened)
        try:
            async with aclosing(self._transport.upload(stream.requests())) as responses:
                async for response in responses:
                    stream.hear(response)
                    if stream.stopped is not None:
                        # Not waiting for the status: a source that blocks could hold it up for minutes.
                        break
                    if response.HasField("progress"):
                        self._durable(file, response.progress.bytes_received, stream.position)
        except errors.UploadServiceError:
            if not stream.is_decided:
                raise
        finally:
            stream.end()
            self._committed = self._committed or stream.committed
        return self._outcome(file, stream)

    def _outcome(self, file: pb.File, stream: Stream) -> pb.File:
        """Return the completed file, or raise what ended the stream."""
        if stream.completed is not None:
            self._report(stream.completed, stream.position)
            return stream.completed
        if stream.stopped is not None:
            raise statuses.upload_stopped(file.file_id, stream.stopped)
        if stream.problem is not None:
            stream.problem.add_note(f"upload {file.file_id} can be resumed or cancelled")
            raise stream.problem
        raise errors.ServerUnreachable("The upload stream ended before the upload did", code=StatusCode.UNAVAILABLE)

    def _durable(self, file: pb.File, bytes_received: int, bytes_sent: int) -> None:
        if bytes_received > file.bytes_received:
            file.bytes_received = bytes_received
            self._backoff.reset()
        self._feed.forget(bytes_received)
        self._report(file, bytes_sent)

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
