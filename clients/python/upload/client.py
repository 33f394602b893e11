"""The client for plain threads: ``AsyncClient``'s operations over synchronous gRPC, without an event loop.

Each method here only drives the method of the same name there; what it does is written down once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self, Unpack

import grpc

from upload.async_client import AsyncClient
from upload.batching import BatchFiles, UploadedBatch
from upload.blocking import BlockingTransport, drive, drive_all
from upload.cancelling import CancelledBatch, CancelledFile
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
)
from upload.sending import OnProgress
from upload.sources import Content
from upload.tls import Tls, endpoint_of
from upload.tokens import Token
from upload.v1 import upload_pb2 as pb


class Client:
    """Uploads, watches and cancels from plain threads; one client may be shared by many.

    Example::

        with Client("localhost:50051") as client:
            file = client.upload("report.pdf")

    Parameters, results and errors are those of ``AsyncClient``. In a program that runs an asyncio loop use that one.
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
    ) -> None:
        transport = BlockingTransport(endpoint_of(target, credentials, tls, metadata, options, token))
        self._client = AsyncClient(target, timeout=timeout, resume_tries=resume_tries, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls still running fail."""
        drive(self._client.close())

    def upload(
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

            file = client.upload("film.mkv", on_progress=lambda p: print(p.bytes_received, p.size_bytes))
            file = client.upload(b"hello", filename="hello.txt")
        """
        return drive(
            self._client.upload(
                content,
                filename=filename,
                content_type=content_type,
                size_bytes=size_bytes,
                sha256=sha256,
                checksum=checksum,
                resume_file_id=resume_file_id,
                is_new=is_new,
                on_progress=on_progress,
            )
        )

    def put(
        self, data: bytes, *, filename: str, content_type: str = "", sha256: str = "", request_id: str = ""
    ) -> File:
        """Send a file of at most 256 KiB in one call and return it completed, with its SHA-256 compared.

        A call that fails leaves nothing behind. It cannot be cancelled or watched under way: ``upload`` can.

        Example::

            file = client.put(b"hello", filename="hello.txt")
        """
        return drive(
            self._client.put(data, filename=filename, content_type=content_type, sha256=sha256, request_id=request_id)
        )

    def initiate(
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

            file = client.initiate("report.pdf", 12_345, content_type="application/pdf")
        """
        return drive(
            self._client.initiate(filename, size_bytes, content_type=content_type, sha256=sha256, request_id=request_id)
        )

    def initiate_batch(self, files: Iterable[pb.FileSpec], *, request_id: str = "") -> InitiatedBatch:
        """Announce 1 to 10,000 files as one batch; the answer has the ``batch`` and ``file_ids`` in order.

        Example::

            answer = client.initiate_batch([FileSpec(filename="a.txt", size_bytes=3)])
            client.upload(b"abc", resume_file_id=answer.file_ids[0])
        """
        return drive(self._client.initiate_batch(files, request_id=request_id))

    def upload_batch(
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

            done = client.upload_batch({"a.txt": b"hello", "films/b.mkv": "film.mkv"})
            print(done.batch.completed_files, done.errors)
        """
        return drive(
            self._client.upload_batch(
                files, checksum=checksum, jobs=jobs, request_id=request_id, on_progress=on_progress
            )
        )

    def cancel(self, file_id: str, *, reason: str = "", request_id: str = "") -> CancelledFile:
        """Cancel a file. When this returns, the file is cancelled for good.

        It asks under one request id, which makes that safe, until an answer comes; a file cancelled before counts as
        success (``already``, with who and why). Raises ``FileNotCancellable`` when it is completed or failed.

        Example::

            cancelled = client.cancel(file_id, reason="wrong version")
            print(cancelled.cancelled_at, cancelled.already)
        """
        return drive(self._client.cancel(file_id, reason=reason, request_id=request_id))

    def cancel_batch(self, batch_id: str, *, reason: str = "", request_id: str = "") -> CancelledBatch:
        """Cancel a batch and every file of it that is not final; otherwise as ``cancel``.

        Example::

            cancelled = client.cancel_batch(batch_id)
            print(cancelled.cancelled_files_count, "of", cancelled.total_files_in_batch)
        """
        return drive(self._client.cancel_batch(batch_id, reason=reason, request_id=request_id))

    def get(self, file_id: str) -> File:
        """Return a file as it is now; raises ``FileNotFound``.

        Example::

            file = client.get(file_id)
        """
        return drive(self._client.get(file_id))

    def download(self, file_id: str, *, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a completed file, or those from ``offset`` on, ``length`` of them.

        The client resumes a broken connection by itself for a while, and compares the SHA-256 of a whole file at its
        end. Raises ``FileNotCompleted``, ``ContentDeleted``, ``ChecksumMismatch``.

        Example::

            with open("film.mkv", "wb") as target:
                for data in client.download(file_id):
                    target.write(data)
        """
        return drive_all(self._client.download(file_id, offset=offset, length=length))

    def delete_content(self, file_id: str, *, reason: str = "", request_id: str = "") -> File:
        """Let go of the bytes of a completed file, and return it: it stays, and nobody can download it any more.

        Raises ``FileNotCompleted``, and ``ContentDeleted`` when its bytes were let go before.

        Example::

            file = client.delete_content(file_id, reason="consumed")
            print(file.content_deleted_at)
        """
        return drive(self._client.delete_content(file_id, reason=reason, request_id=request_id))

    def get_batch(self, batch_id: str) -> Batch:
        """Return a batch as it is now; raises ``BatchNotFound``.

        Example::

            batch = client.get_batch(batch_id)
        """
        return drive(self._client.get_batch(batch_id))

    def list_files(
        self,
        *,
        status: str = "",
        statuses: Sequence[str] = (),
        batch_id: str = "",
        without_batch: bool = False,
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[Filters],
    ) -> Iterator[File]:
        """Iterate over files, fetching pages on the way: the oldest first, or ``order_by="created_at desc"``.

        ``status``, or several in ``statuses``, are lower-case words; the other filters are those of ``Filters``.

        Example::

            for file in client.list_files(statuses=["pending", "uploading"], order_by="created_at desc"):
                print(file.filename)
        """
        files = self._client.list_files(
            status=status,
            statuses=statuses,
            batch_id=batch_id,
            without_batch=without_batch,
            order_by=order_by,
            page_size=page_size,
            **filters,
        )
        return drive_all(files)

    def list_batches(
        self,
        *,
        status: str = "",
        statuses: Sequence[str] = (),
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[Filters],
    ) -> Iterator[Batch]:
        """Iterate over batches, as ``list_files`` does over files.

        Example::

            for batch in client.list_batches(status="cancelled", order_by="created_at desc"):
                print(batch.batch_id, batch.cancel_reason)
        """
        batches = self._client.list_batches(
            status=status, statuses=statuses, order_by=order_by, page_size=page_size, **filters
        )
        return drive_all(batches)

    def statistics(self, *, window: timedelta = timedelta(0), step: timedelta = timedelta(0)) -> Statistics:
        """Count files and batches by state over the whole service, and what happened in each ``step`` of ``window``.

        Example::

            counted = client.statistics(window=timedelta(hours=1), step=timedelta(minutes=1))
            print(sum(bucket.cancelled for bucket in counted.buckets), "cancelled in the last hour")
        """
        return drive(self._client.statistics(window=window, step=step))

    def caller(self) -> Caller:
        """Return who this client is to the server: the principal, its roles, what it may, and until when.

        Example::

            print((client.caller()).principal)
        """
        return drive(self._client.caller())

    def audit(
        self,
        *,
        file_id: str = "",
        batch_id: str = "",
        order_by: str = "",
        page_size: int = 0,
        **filters: Unpack[EventFilters],
    ) -> Iterator[AuditEvent]:
        """Iterate over the audit trail: the oldest first, or ``order_by="event_id desc"``.

        A batch's trail includes its files'; the other filters are those of ``EventFilters``.

        Example::

            for event in client.audit(file_id=file_id):
                print(event.to_status, event.actor)
        """
        events = self._client.audit(
            file_id=file_id, batch_id=batch_id, order_by=order_by, page_size=page_size, **filters
        )
        return drive_all(events)

    def watch(
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
    ) -> Iterator[WatchEvent]:
        """Yield the current state of the targets, a bookmark, then every change; no revision of a target twice.

        It resumes a broken connection where it broke, for up to ``patience`` seconds at a time. With
        ``until_final`` it ends after the last target's final state. ``progress_interval`` is in seconds, 0 for none.

        Example::

            for event in client.watch([file_id], until_final=True):
                if event.file:
                    print(event.file.status, event.file.revision)
        """
        return drive_all(
            self._client.watch(
                file_ids,
                batch_ids=batch_ids,
                include_batch_files=include_batch_files,
                all=all,
                owner=owner,
                until_final=until_final,
                progress_interval=progress_interval,
                resume_token=resume_token,
                patience=patience,
            )
        )
