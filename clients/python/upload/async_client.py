"""The client for asyncio, which puts its operations together. ``client.py`` is the same for threads."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import grpc
from google.protobuf import duration_pb2

from upload import cancelling, downloading, errors, watching
from upload.aio import AioTransport
from upload.batching import BatchFiles, UploadedBatch, helpful_jobs, sendables
from upload.cancelling import CancelledBatch, CancelledFile, ask, new_request_id
from upload.channel import DEFAULT_TARGET, Option
from upload.filters import EventFilters, Filters
from upload.records import (
    AuditEvent,
    Batch,
    Caller,
    File,
    InitiatedBatch,
    Statistics,
    WatchEvent,
    record,
)
from upload.retry import Backoff
from upload.sending import OnProgress, Sending, verdict
from upload.sources import Content, Feed, Source, open_source
from upload.statuses import batch_status_number, status_number
from upload.tls import Tls, endpoint_of
from upload.tokens import Token
from upload.transport import (
    DELETE_CONTENT,
    GET_BATCH,
    GET_CALLER,
    GET_FILE,
    GET_STATISTICS,
    INITIATE_BATCH,
    INITIATE_UPLOAD,
    LIST_AUDIT_EVENTS,
    LIST_BATCHES,
    LIST_FILES,
    PUT_FILE,
    Transport,
)
from upload.v1 import upload_pb2 as pb

# gRPC repeats reads too; so many more tries outlast a server that is overloaded or starts again.
_READ_TRIES = 2


class AsyncClient:
    """Uploads, watches and cancels on an asyncio loop.

    Example::

        async with AsyncClient("localhost:50051") as client:
            file = await client.upload("report.pdf")

    ``target`` is a host and port, which are spoken to in plain text, or ``https://`` with them, for TLS: ``tls`` says
    what to trust and what to show. ``token`` says who calls: a token, a function that returns one (called again once
    the server refuses it), or a ``TokenSource``; it is sent over TLS or to this machine only. ``timeout`` is how many
    seconds a call may take in all, its repetitions included; uploads and watches have no such limit. ``resume_tries``
    is how often the client resumes a broken upload without getting any further.
    An upload also takes an asynchronous iterator of bytes.
    Every method raises ``UploadServiceError``, one class per reason (``upload.errors``).
    Cancelling the task that awaits a method gives up waiting, and never cancels an upload: call ``cancel`` for that.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = 30.0,
        resume_tries: int = 8,
        credentials: grpc.ChannelCredentials | None = None,
        tls: Tls | None = None,
        token: Token | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[Option] = (),
        transport: Transport | None = None,
    ) -> None:
        if transport is None:
            transport = AioTransport(endpoint_of(target, credentials, tls, metadata, options, token))
        self._transport: Transport = transport
        self._timeout = timeout
        self._resume_tries = resume_tries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls still running fail."""
        await self._transport.close()

    async def upload(
        self,
        content: Content,
        *,
        filename: str = "",
        content_type: str = "",
        size_bytes: int | None = None,
        sha256: str = "",
        checksum: bool = True,
        resume_file_id: str = "",
        is_new: bool = False,
        on_progress: OnProgress | None = None,
    ) -> File:
        """Send a file and return it completed.

        ``content`` is a path, bytes, or an iterator of bytes together with ``size_bytes``. ``filename``
        and ``content_type`` follow from a path by default. With ``checksum`` the server compares
        the SHA-256 of its bytes with that of the bytes read here; ``sha256`` is one known beforehand.
        ``resume_file_id`` goes on with a file announced before (by an upload that broke, or by
        ``initiate_batch``) where its durable bytes end; with ``is_new`` nobody has sent to it as yet, which saves
        asking how it stands. The client resumes a broken connection by itself for a while.

        Raises ``UploadCancelled`` with who and why when a cancel takes the file, ``ChecksumMismatch``,
        ``WriterReplaced``, ``SourceChanged`` when the source changes meanwhile, ``OSError`` when it fails; unless
        the file is final, ``error.file_id`` resumes it.

        Example::

            file = await client.upload("film.mkv", on_progress=lambda p: print(p.bytes_received, p.size_bytes))
            file = await client.upload(b"hello", filename="hello.txt")
        """
        source = await open_source(content, size_bytes, self._transport)
        feed = Feed(source, self._transport, checksum=checksum)
        try:
            if resume_file_id and is_new:
                file = pb.File(file_id=resume_file_id, size_bytes=source.size, status=pb.UPLOAD_STATUS_PENDING)
            elif resume_file_id:
                file = await self._resumed(resume_file_id, source)
            else:
                name, kind = _names(content, filename, content_type)
                file = await self._initiate(name, source.size, content_type=kind, sha256=sha256)
            sending = Sending(self._transport, feed, self._get, on_progress, Backoff(self._resume_tries))
            try:
                return record(File, await sending.send(file))
            except errors.FileNotWritable:
                # It was final before its stream opened: tell who cancelled it, and why.
                verdict(await self._get(file.file_id))
                raise
        finally:
            await feed.close()

    async def _resumed(self, file_id: str, source: Source) -> pb.File:
        file = await self._get(file_id)
        if file.status == pb.UPLOAD_STATUS_COMPLETED:
            raise errors.FileNotWritable(
                "The file is completed and takes no more bytes",
                metadata={"file_id": file_id, "status": "completed", "revision": str(file.revision)},
            )
        verdict(file)
        if file.size_bytes != source.size:
            raise errors.SourceChanged(
                f"The source has {source.size} bytes, but {file.size_bytes} were announced",
                metadata={"file_id": file_id},
            )
        return file

    async def put(
        self, data: bytes, *, filename: str, content_type: str = "", sha256: str = "", request_id: str = ""
    ) -> File:
        """Send a file of at most 256 KiB in one call and return it completed, with its SHA-256 compared.

        A call that fails leaves nothing behind. It cannot be cancelled or watched under way: ``upload`` can.

        Example::

            file = await client.put(b"hello", filename="hello.txt")
        """
        name, kind = _names(data, filename, content_type)
        request_id = request_id or new_request_id()
        request = pb.PutFileRequest(
            filename=name,
            size_bytes=len(data),
            content_type=kind,
            sha256=sha256 or hashlib.sha256(data).hexdigest(),
            data=data,
            request_id=request_id,
        )
        file = await ask(self._transport, PUT_FILE, request, self._timeout, request_id)
        return record(File, file)

    async def initiate(
        self,
        filename: str,
        size_bytes: int,
        *,
        content_type: str = "",
        sha256: str = "",
        request_id: str = "",
    ) -> File:
        """Announce a file and return it ``pending``; its bytes follow by ``upload(…, resume_file_id=file.file_id)``.

        Example::

            file = await client.initiate("report.pdf", 12_345, content_type="application/pdf")
        """
        announced = await self._initiate(filename, size_bytes, content_type, sha256, request_id)
        return record(File, announced)

    async def _initiate(
        self, filename: str, size_bytes: int, content_type: str = "", sha256: str = "", request_id: str = ""
    ) -> pb.File:
        request_id = request_id or new_request_id()
        request = pb.InitiateUploadRequest(
            filename=filename,
            size_bytes=size_bytes,
            content_type=content_type,
            sha256=sha256,
            request_id=request_id,
        )
        answer = await ask(self._transport, INITIATE_UPLOAD, request, self._timeout, request_id)
        return answer.file

    async def initiate_batch(self, files: Iterable[pb.FileSpec], *, request_id: str = "") -> InitiatedBatch:
        """Announce 1 to 10,000 files as one batch; the answer has the ``batch`` and ``file_ids`` in order.

        Example::

            answer = await client.initiate_batch([FileSpec(filename="a.txt", size_bytes=3)])
            await client.upload(b"abc", resume_file_id=answer.file_ids[0])
        """
        request_id = request_id or new_request_id()
        request = pb.InitiateBatchRequest(files=files, request_id=request_id)
        answer = await ask(self._transport, INITIATE_BATCH, request, self._timeout, request_id)
        return record(InitiatedBatch, answer)

    async def upload_batch(
        self,
        files: BatchFiles,
        *,
        checksum: bool = True,
        jobs: int = 0,
        request_id: str = "",
        on_progress: OnProgress | None = None,
    ) -> UploadedBatch:
        """Announce files that belong together as one batch, send them, and tell what became of each.

        ``files`` is a folder, several paths, or a mapping of names to paths or bytes; at most 10,000 of them. ``jobs``
        of them are sent at once (default 4, or 32 while all are at most 256 KiB). A file that fails or is cancelled
        does not keep the others from their end: ``errors`` has why, by name. ``on_progress`` is told of every file.

        Raises ``OSError`` for a path that fails before anything is announced, ``InvalidField`` for a name that the
        service does not take.

        Example::

            done = await client.upload_batch({"a.txt": b"hello", "films/b.mkv": "film.mkv"})
            print(done.batch.completed_files, done.errors)
        """
        found = await self._transport.run(sendables, files)
        announced = await self.initiate_batch(found.specs, request_id=request_id)
        completed: dict[int, File] = {}
        failed: dict[str, Exception] = {}

        async def send(place: int) -> None:
            try:
                completed[place] = await self.upload(
                    found.contents[place],
                    size_bytes=found.sizes[place],
                    checksum=checksum,
                    resume_file_id=announced.file_ids[place],
                    is_new=True,
                    on_progress=on_progress,
                )
            except (errors.UploadServiceError, OSError) as error:
                failed[found.names[place]] = error

        count = len(found.names)
        await self._transport.each(send, range(count), min(jobs or helpful_jobs(found.sizes), count))
        batch = await self.get_batch(announced.batch.batch_id)
        return UploadedBatch(batch, tuple(completed[place] for place in sorted(completed)), failed, found.skipped)

    async def cancel(self, file_id: str, *, reason: str = "", request_id: str = "") -> CancelledFile:
        """Cancel a file. When this returns, the file is cancelled for good.

        It asks under one request id, which makes that safe, until an answer comes; a file cancelled before counts as
        success (``already``, with who and why). Raises ``FileNotCancellable`` when it is completed or failed.

        Example::

            cancelled = await client.cancel(file_id, reason="wrong version")
            print(cancelled.cancelled_at, cancelled.already)
        """
        request_id = request_id or new_request_id()
        return await cancelling.cancel_file(self._transport, file_id, reason, request_id, self._timeout)

    async def cancel_batch(self, batch_id: str, *, reason: str = "", request_id: str = "") -> CancelledBatch:
        """Cancel a batch and every file of it that is not final; otherwise as ``cancel``.

        Example::

            cancelled = await client.cancel_batch(batch_id)
            print(cancelled.cancelled_files_count, "of", cancelled.total_files_in_batch)
        """
        request_id = request_id or new_request_id()
        return await cancelling.cancel_batch(self._transport, batch_id, reason, request_id, self._timeout)

    async def get(self, file_id: str) -> File:
        """Return a file as it is now; raises ``FileNotFound``.

        Example::

            file = await client.get(file_id)
        """
        return record(File, await self._get(file_id))

    async def _get(self, file_id: str) -> pb.File:
        request = pb.GetFileRequest(file_id=file_id)
        return await ask(self._transport, GET_FILE, request, self._timeout, tries=_READ_TRIES)

    async def download(self, file_id: str, *, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a completed file, or those from ``offset`` on, ``length`` of them.

        The client resumes a broken connection by itself for a while, and compares the SHA-256 of a whole file at its
        end. Raises ``FileNotCompleted``, ``ContentDeleted``, ``ChecksumMismatch``.

        Example::

            with open("film.mkv", "wb") as target:
                async for data in client.download(file_id):
                    target.write(data)
        """
        request = pb.DownloadFileRequest(file_id=file_id, offset=offset, length=length)
        async with aclosing(downloading.download(self._transport, request, Backoff(self._resume_tries))) as pieces:
            async for piece in pieces:
                yield piece

    async def delete_content(self, file_id: str, *, reason: str = "", request_id: str = "") -> File:
        """Let go of the bytes of a completed file, and return it: it stays, and nobody can download it any more.

        Raises ``FileNotCompleted``, and ``ContentDeleted`` when its bytes were let go before.

        Example::

            file = await client.delete_content(file_id, reason="consumed")
            print(file.content_deleted_at)
        """
        request_id = request_id or new_request_id()
        request = pb.DeleteContentRequest(file_id=file_id, reason=reason, request_id=request_id)
        file = await ask(self._transport, DELETE_CONTENT, request, self._timeout, request_id)
        return record(File, file)

    async def get_batch(self, batch_id: str) -> Batch:
        """Return a batch as it is now; raises ``BatchNotFound``.

        Example::

            batch = await client.get_batch(batch_id)
        """
        request = pb.GetBatchRequest(batch_id=batch_id)
        batch = await ask(self._transport, GET_BATCH, request, self._timeout, tries=_READ_TRIES)
        return record(Batch, batch)

    async def list_files(
        self,
        *,
        status: str = "",
        statuses: Sequence[str] = (),
        batch_id: str = "",
        without_batch: bool = False,
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[Filters],
    ) -> AsyncIterator[File]:
        """Iterate over files, fetching pages on the way: the oldest first, or ``order_by="created_at desc"``.

        ``status``, or several in ``statuses``, are lower-case words; the other filters are those of ``Filters``.

        Example::

            async for file in client.list_files(statuses=["pending", "uploading"], order_by="created_at desc"):
                print(file.filename)
        """
        request = pb.ListFilesRequest(
            status=status_number(status),
            statuses=map(status_number, statuses),
            batch_id=batch_id,
            without_batch=without_batch,
            order_by=order_by,
            page_size=page_size,
            **filters,
        )
        while True:
            page = await ask(self._transport, LIST_FILES, request, self._timeout, tries=_READ_TRIES)
            for file in page.files:
                yield record(File, file)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_batches(
        self,
        *,
        status: str = "",
        statuses: Sequence[str] = (),
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[Filters],
    ) -> AsyncIterator[Batch]:
        """Iterate over batches, as ``list_files`` does over files.

        Example::

            async for batch in client.list_batches(status="cancelled", order_by="created_at desc"):
                print(batch.batch_id, batch.cancel_reason)
        """
        request = pb.ListBatchesRequest(
            status=batch_status_number(status),
            statuses=map(batch_status_number, statuses),
            order_by=order_by,
            page_size=page_size,
            **filters,
        )
        while True:
            page = await ask(self._transport, LIST_BATCHES, request, self._timeout, tries=_READ_TRIES)
            for batch in page.batches:
                yield record(Batch, batch)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def statistics(self, *, window: timedelta = timedelta(0), step: timedelta = timedelta(0)) -> Statistics:
        """Count files and batches by state over the whole service, and what happened in each ``step`` of ``window``.

        Example::

            counted = await client.statistics(window=timedelta(hours=1), step=timedelta(minutes=1))
            print(sum(bucket.cancelled for bucket in counted.buckets), "cancelled in the last hour")
        """
        request = pb.GetStatisticsRequest(window=window or None, step=step or None)
        counted = await ask(self._transport, GET_STATISTICS, request, self._timeout, tries=_READ_TRIES)
        return record(Statistics, counted)

    async def caller(self) -> Caller:
        """Return who this client is to the server: the principal, its roles, what it may, and until when.

        Example::

            print((await client.caller()).principal)
        """
        answer = await ask(self._transport, GET_CALLER, pb.GetCallerRequest(), self._timeout, tries=_READ_TRIES)
        return record(Caller, answer)

    async def audit(
        self,
        *,
        file_id: str = "",
        batch_id: str = "",
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[EventFilters],
    ) -> AsyncIterator[AuditEvent]:
        """Iterate over the audit trail: the oldest first, or ``order_by="event_id desc"``.

        A batch's trail includes its files'; the other filters are those of ``EventFilters``.

        Example::

            async for event in client.audit(file_id=file_id):
                print(event.to_status, event.actor)
        """
        request = pb.ListAuditEventsRequest(
            file_id=file_id, batch_id=batch_id, order_by=order_by, page_size=page_size, **filters
        )
        while True:
            page = await ask(self._transport, LIST_AUDIT_EVENTS, request, self._timeout, tries=_READ_TRIES)
            for event in page.events:
                yield record(AuditEvent, event)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(
        self,
        file_ids: Sequence[str] = (),
        *,
        batch_ids: Sequence[str] = (),
        include_batch_files: bool = False,
        all: bool = False,  # noqa: A002 - the contract's name
        owner: str = "",
        until_final: bool = False,
        progress_interval: float = 0.0,
        resume_token: str = "",
        patience: float = 60.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the current state of the targets, a bookmark, then every change; no revision of a target twice.

        It resumes a broken connection where it broke, for up to ``patience`` seconds at a time. With
        ``until_final`` it ends after the last target's final state. ``progress_interval`` is in seconds, 0 for none.

        Example::

            async for event in client.watch([file_id], until_final=True):
                if event.file:
                    print(event.file.status, event.file.revision)
        """
        request = pb.WatchStatusRequest(
            file_ids=file_ids,
            batch_ids=batch_ids,
            include_batch_files=include_batch_files,
            all=all,
            owner=owner,
            until_final=until_final,
            resume_token=resume_token,
        )
        if progress_interval:
            request.progress_interval.CopyFrom(_duration(progress_interval))
        async with aclosing(watching.watch(self._transport, request, patience)) as events:
            async for event in events:
                yield record(WatchEvent, event)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _names(content: Content, filename: str, content_type: str) -> tuple[str, str]:
    """Return name (in NFC, as the service asks) and media type, guessed from a path by default."""
    if not filename and isinstance(content, str | os.PathLike):
        filename = Path(content).name
    if not filename:
        raise TypeError("filename must be given to upload from bytes or an iterator")
    filename = unicodedata.normalize("NFC", filename)
    return filename, content_type or mimetypes.guess_type(filename)[0] or ""
