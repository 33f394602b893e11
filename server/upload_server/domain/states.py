"""Decides which states exist and what may follow what: pure values, no I/O.

Must not know how anything is stored, sent or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class FileStatus(StrEnum):
    """State of a file, as stored, logged and exported."""

    PENDING = "pending"
    UPLOADING = "uploading"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return not NEXT_FILE[self]


class BatchStatus(StrEnum):
    """State of a batch, as stored, logged and exported."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return not NEXT_BATCH[self]


NEXT_FILE: Mapping[FileStatus, frozenset[FileStatus]] = {
    FileStatus.PENDING: frozenset({FileStatus.UPLOADING, FileStatus.FAILED, FileStatus.CANCELLED}),
    FileStatus.UPLOADING: frozenset({FileStatus.COMPLETED, FileStatus.FAILED, FileStatus.CANCELLED}),
    FileStatus.COMPLETED: frozenset(),
    FileStatus.FAILED: frozenset(),
    FileStatus.CANCELLED: frozenset(),
}

NEXT_BATCH: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.PENDING: frozenset({BatchStatus.PROCESSING, BatchStatus.FAILED, BatchStatus.CANCELLED}),
    BatchStatus.PROCESSING: frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELLED}),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
}


def sources_of(target: FileStatus) -> frozenset[FileStatus]:
    """States a file may be in for it to become ``target``: the from-set of the conditional write."""
    return frozenset(status for status, following in NEXT_FILE.items() if target in following)


def roll_up(total: int, completed: int, failed: int, cancelled: int) -> BatchStatus | None:
    """Return the final status that follows from a batch's files, or None while some are not final."""
    if completed + failed + cancelled < total:
        return None
    if cancelled == total:
        return BatchStatus.CANCELLED
    return BatchStatus.FAILED if failed else BatchStatus.COMPLETED


class FailureReason(StrEnum):
    """Why a file failed."""

    CHECKSUM_MISMATCH = "checksum_mismatch"
    EXPIRED = "expired"


class Source(StrEnum):
    """The door or the mechanism through which a change came."""

    GRPC = "grpc"
    HTTP = "http"
    WEBSOCKET = "websocket"
    WEBSOCKET_CLOSE = "websocket_close"
    TUS = "tus"
    BATCH_CANCEL = "batch_cancel"
    EXPIRY = "expiry"
    ROLL_UP = "roll_up"
    RETENTION = "retention"


# Changes that a file names by their source: a page that closed its WebSocket did not ask, nor did anybody for a file
# whose batch was cancelled, or whose time is over.
NAMED_BY_SOURCE = (Source.WEBSOCKET_CLOSE, Source.BATCH_CANCEL, Source.RETENTION)
# `cancelled_by` of a batch that became cancelled because each of its files was.
ALL_FILES = "all_files"
SYSTEM = "system"


def named(source: str, actor: str) -> str:
    """Return what ``cancelled_by`` or ``content_deleted_by`` of a file says of a change by ``actor`` through
    ``source``."""
    return str(source) if source in NAMED_BY_SOURCE else actor


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What is announced of one file; ``sha256`` is lower-case hex or empty.

    ``tus_metadata`` is the text by which a tus client said it, in ASCII; empty through another door, lost in a batch.
    """

    filename: str
    size_bytes: int
    content_type: str = ""
    sha256: str = ""
    tus_metadata: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """One upload as it stands at ``revision``. Times are UTC, cut to microseconds."""

    file_id: str
    filename: str
    content_type: str
    size_bytes: int
    bytes_received: int
    status: FileStatus
    batch_id: str
    owner: str
    sha256: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str
    cancel_reason: str
    failure_reason: str
    revision: int
    # Not on the wire: the number of the row's last change, and the writer's fence.
    change_no: int
    fence: int
    # As `bytes_received` no change of the file: the door of the stream that brought the last of them; empty when that
    # stream has more bytes than the file may have.
    writer: str = field(default="", compare=False)
    # Not on the wire either: the fence that its newest run is named by, so of a completed file all its bytes.
    run_fence: int = field(default=0, compare=False)
    # Of a completed file whose bytes were let go: when, and by whom.
    content_deleted_at: datetime | None = None
    content_deleted_by: str = ""

    @property
    def has_content(self) -> bool:
        """Whether all its bytes are there, and stay."""
        return self.status is FileStatus.COMPLETED and self.content_deleted_at is None


@dataclass(frozen=True, slots=True)
class Batch:
    """Files announced together, as they stand at ``revision``."""

    batch_id: str
    status: BatchStatus
    owner: str
    total_files: int
    completed_files: int
    failed_files: int
    cancelled_files_count: int
    created_at: datetime
    updated_at: datetime
    cancelled_at: datetime | None
    cancelled_by: str
    cancel_reason: str
    revision: int
    change_no: int


def rolled_up(batch: Batch, at: datetime, *, started: bool) -> Batch:
    """Return a batch whose counters changed in the status that follows from them; a final status stays.

    ``started``: one of its files is uploading. A file that is cancelled or failed before it was ever sent to leaves the
    batch pending.
    """
    if batch.status.final:
        return batch
    counters = (batch.completed_files, batch.failed_files, batch.cancelled_files_count)
    status = roll_up(batch.total_files, *counters)
    if status is None:
        status = BatchStatus.PROCESSING if started or batch.completed_files else batch.status
    if status is batch.status:
        return batch
    if status is BatchStatus.CANCELLED:
        batch = replace(batch, cancelled_at=at, cancelled_by=ALL_FILES)
    return replace(batch, status=status, updated_at=at)


class AuditEvent(NamedTuple):
    """One committed change of status; ``event_id`` is its change number. Or the end of a completed file's bytes, which
    goes from ``completed`` to ``completed``."""

    event_id: int
    file_id: str
    batch_id: str
    from_status: str
    to_status: str
    actor: str
    source: str
    reason: str
    request_id: str
    occurred_at: datetime
    # What the caller proved its name by, and where it called from; empty while callers are not authenticated.
    credential: str = ""
    peer: str = ""
    # Of the file; the trail keeps it with the file's creation, other events show it from the file's row.
    filename: str = ""


def cancelled(file: File, cancel: AuditEvent) -> File:
    """Return ``file`` as a committed cancel left it; ``cancel`` is the audit event of the file, or of its whole batch.

    With its batch a file gets a change number of its own, which is not known here: it keeps the one it had.
    """
    if cancel.file_id:
        by, change_no = named(cancel.source, cancel.actor), cancel.event_id
    else:
        by, change_no = Source.BATCH_CANCEL.value, file.change_no
    return replace(
        file,
        status=FileStatus.CANCELLED,
        updated_at=cancel.occurred_at,
        cancelled_at=cancel.occurred_at,
        cancelled_by=by,
        cancel_reason=cancel.reason,
        revision=file.revision + 1,
        change_no=change_no,
        fence=file.fence + 1,
    )


def without_content(file: File, event: AuditEvent) -> File:
    """Return ``file`` as a committed end of its bytes left it; its status stays, and since when it has it."""
    return replace(
        file,
        content_deleted_at=event.occurred_at,
        content_deleted_by=named(event.source, event.actor),
        revision=file.revision + 1,
        change_no=event.event_id,
    )


@dataclass(frozen=True, slots=True)
class CancelledFile:
    """The answer to a cancel of one file, kept under its request id so that it repeats exactly."""

    file_id: str
    filename: str
    cancelled_at: datetime


@dataclass(frozen=True, slots=True)
class CancelledBatch:
    """The answer to a cancel of a batch: ``cancelled_files_count`` are those this call cancelled."""

    batch_id: str
    cancelled_files_count: int
    total_files_in_batch: int
    cancelled_at: datetime
