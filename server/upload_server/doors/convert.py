"""Decides how the domain's values look as messages of upload.v1.

Must not know where the values come from or which transport carries the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from upload.v1 import upload_pb2 as pb
from upload_server.domain.caller import Caller
from upload_server.domain.errors import FieldViolation, InvalidField
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    BatchStatus,
    CancelledBatch,
    CancelledFile,
    File,
    FileSpec,
    FileStatus,
)
from upload_server.service import Statistics
from upload_server.store.values import Listing, Trail

_FILE_STATUS: Mapping[FileStatus, pb.UploadStatus] = {
    FileStatus.PENDING: pb.UPLOAD_STATUS_PENDING,
    FileStatus.UPLOADING: pb.UPLOAD_STATUS_UPLOADING,
    FileStatus.COMPLETED: pb.UPLOAD_STATUS_COMPLETED,
    FileStatus.FAILED: pb.UPLOAD_STATUS_FAILED,
    FileStatus.CANCELLED: pb.UPLOAD_STATUS_CANCELLED,
}
_BATCH_STATUS: Mapping[BatchStatus, pb.BatchStatus] = {
    BatchStatus.PENDING: pb.BATCH_STATUS_PENDING,
    BatchStatus.PROCESSING: pb.BATCH_STATUS_PROCESSING,
    BatchStatus.COMPLETED: pb.BATCH_STATUS_COMPLETED,
    BatchStatus.FAILED: pb.BATCH_STATUS_FAILED,
    BatchStatus.CANCELLED: pb.BATCH_STATUS_CANCELLED,
}
_STATUS_OF_FILE: Mapping[int, FileStatus] = {number: status for status, number in _FILE_STATUS.items()}
_STATUS_OF_BATCH: Mapping[int, BatchStatus] = {number: status for status, number in _BATCH_STATUS.items()}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(moment: datetime) -> Timestamp:
    """Exact conversion: integers only, so that an answer repeats byte for byte."""
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def _optional(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else timestamp(moment)


def seconds(duration: Duration) -> float:
    """Return a duration, 0 when it is not set, in seconds."""
    return duration.seconds + duration.nanos / 1e9


# Makes a file's message.
FileMessage = Callable[[File], pb.File]


def with_content_uri(uri_of: Callable[[str, int], str]) -> FileMessage:
    """Have messages of files that have content say where it lies, given file id and fence."""

    def to_proto(file: File) -> pb.File:
        message = file_to_proto(file)
        if file.has_content:
            message.content_uri = uri_of(file.file_id, file.run_fence)
        return message

    return to_proto


def file_to_proto(file: File) -> pb.File:
    """Return ``file`` as its message, which does not say where its bytes lie."""
    return pb.File(
        file_id=file.file_id,
        filename=file.filename,
        content_type=file.content_type,
        size_bytes=file.size_bytes,
        bytes_received=file.bytes_received,
        status=_FILE_STATUS[file.status],
        batch_id=file.batch_id,
        owner=file.owner,
        sha256=file.sha256,
        created_at=timestamp(file.created_at),
        updated_at=timestamp(file.updated_at),
        completed_at=_optional(file.completed_at),
        cancelled_at=_optional(file.cancelled_at),
        cancelled_by=file.cancelled_by,
        cancel_reason=file.cancel_reason,
        failure_reason=file.failure_reason,
        revision=file.revision,
        content_deleted_at=_optional(file.content_deleted_at),
        content_deleted_by=file.content_deleted_by,
    )


def batch_to_proto(batch: Batch) -> pb.Batch:
    """Return ``batch`` as its message."""
    return pb.Batch(
        batch_id=batch.batch_id,
        status=_BATCH_STATUS[batch.status],
        owner=batch.owner,
        total_files=batch.total_files,
        completed_files=batch.completed_files,
        failed_files=batch.failed_files,
        cancelled_files_count=batch.cancelled_files_count,
        created_at=timestamp(batch.created_at),
        updated_at=timestamp(batch.updated_at),
        cancelled_at=_optional(batch.cancelled_at),
        cancelled_by=batch.cancelled_by,
        cancel_reason=batch.cancel_reason,
        revision=batch.revision,
    )


def audit_event_to_proto(event: AuditEvent) -> pb.AuditEvent:
    """Return ``event`` as its message."""
    return pb.AuditEvent(
        event_id=str(event.event_id),
        file_id=event.file_id,
        batch_id=event.batch_id,
        from_status=event.from_status,
        to_status=event.to_status,
        actor=event.actor,
        source=event.source,
        reason=event.reason,
        request_id=event.request_id,
        occurred_at=timestamp(event.occurred_at),
        credential=event.credential,
        peer=event.peer,
        filename=event.filename,
    )


def cancelled_file_to_proto(answer: CancelledFile) -> pb.CancelFileResponse:
    """Return the answer of a file's cancel."""
    return pb.CancelFileResponse(
        message="Upload cancelled successfully",
        file_id=answer.file_id,
        filename=answer.filename,
        cancelled_at=timestamp(answer.cancelled_at),
    )


def cancelled_batch_to_proto(answer: CancelledBatch) -> pb.CancelBatchResponse:
    """Return the answer of a batch's cancel."""
    return pb.CancelBatchResponse(
        message="Batch upload cancelled successfully",
        batch_id=answer.batch_id,
        cancelled_files_count=answer.cancelled_files_count,
        total_files_in_batch=answer.total_files_in_batch,
        cancelled_at=timestamp(answer.cancelled_at),
    )


def stopped_to_proto(file: File) -> pb.UploadStopped:
    """Return what a sender hears of its file's cancel."""
    return pb.UploadStopped(
        status=_FILE_STATUS[file.status],
        cancelled_at=_optional(file.cancelled_at),
        cancelled_by=file.cancelled_by,
        cancel_reason=file.cancel_reason,
    )


def listed_files(request: pb.ListFilesRequest) -> Listing:
    """Return which files are wanted; raises ``InvalidField`` for what is no state or no time."""
    return replace(_listing(request, _STATUS_OF_FILE), batch_id=request.batch_id, without_batch=request.without_batch)


def listed_batches(request: pb.ListBatchesRequest) -> Listing:
    """Return which batches are wanted; raises ``InvalidField`` for what is no state or no time."""
    return _listing(request, _STATUS_OF_BATCH)


def _listing(request: pb.ListFilesRequest | pb.ListBatchesRequest, known: Mapping[int, str]) -> Listing:
    return Listing(
        owner=request.owner or None,
        statuses=_states(request.status, request.statuses, known),
        filename_prefix=request.filename_prefix,
        created_after=_time(request, "created_after"),
        created_before=_time(request, "created_before"),
        updated_after=_time(request, "updated_after"),
        cancelled_by=request.cancelled_by,
    )


def trail(request: pb.ListAuditEventsRequest) -> Trail:
    """Return which events are wanted; raises ``InvalidField`` for what is no time."""
    return Trail(
        owner=request.owner or None,
        file_id=request.file_id,
        batch_id=request.batch_id,
        actor=request.actor,
        source=request.source,
        to_status=request.to_status,
        occurred_after=_time(request, "occurred_after"),
        occurred_before=_time(request, "occurred_before"),
    )


def _states(status: int, statuses: Sequence[int], known: Mapping[int, str]) -> Sequence[str]:
    """Return the states of a filter, each once and in one order, whichever of the two fields names them."""
    if status and status not in known:
        raise InvalidField([FieldViolation("status", "is no state")])
    if status and statuses:
        raise InvalidField([FieldViolation("statuses", "must not be combined with status")])
    if len(statuses) > len(known):
        raise InvalidField([FieldViolation("statuses", f"must be at most {len(known)} states", len(known))])
    for index, wanted in enumerate(statuses):
        if wanted not in known:
            raise InvalidField([FieldViolation(f"statuses[{index}]", "is no state")])
    return sorted({known[wanted] for wanted in ([status] if status else statuses)})


def _time(request: Message, field: str) -> datetime | None:
    """Return a time to compare with, which have microseconds: no row lies between it and what was given."""
    if not request.HasField(field):
        return None
    given: Timestamp = getattr(request, field)
    # Rounded away from what is wanted: up where earlier rows are.
    micros = -(-given.nanos // 1000) if field.endswith("before") else given.nanos // 1000
    try:
        return _EPOCH + timedelta(seconds=given.seconds, microseconds=micros)
    except OverflowError:
        raise InvalidField([FieldViolation(field, "must be a time of the years 1 to 9999")]) from None


def statistics_to_proto(statistics: Statistics) -> pb.GetStatisticsResponse:
    """Return what was counted as its message."""
    counts, buckets = statistics.counts, statistics.buckets
    return pb.GetStatisticsResponse(
        files=[
            pb.FileCount(status=number, files=counts.files[status].files, size_bytes=counts.files[status].size_bytes)
            for status, number in _FILE_STATUS.items()
        ],
        batches=[
            pb.BatchCount(status=number, batches=counts.batches[status]) for status, number in _BATCH_STATUS.items()
        ],
        cancels_too_late=statistics.late,
        counted_since=timestamp(statistics.since),
        resume_token=statistics.resume_token,
        buckets=[
            pb.StatisticsBucket(
                start_at=timestamp(buckets.start_of(index)),
                begun=moves.begun,
                completed=moves.completed,
                failed=moves.failed,
                cancelled=moves.cancelled,
                cancels_too_late=statistics.late_in_buckets[index],
            )
            for index, moves in enumerate(counts.moves)
        ]
        if buckets
        else (),
    )


def file_spec(message: pb.FileSpec | pb.InitiateUploadRequest | pb.PutFileRequest) -> FileSpec:
    """Return what is announced, as given: the service checks it."""
    return FileSpec(message.filename, message.size_bytes, message.content_type, message.sha256)


def caller_to_proto(caller: Caller, quotas: Mapping[str, tuple[int, int]]) -> pb.GetCallerResponse:
    """Return who calls, with its bounds and what it has of each."""
    answer = pb.GetCallerResponse(
        principal=caller.principal,
        roles=sorted(caller.roles),
        may=sorted(caller.may),
        credential=caller.credential,
        quotas=[pb.Quota(name=name, limit=limit, used=used) for name, (limit, used) in sorted(quotas.items())],
    )
    if caller.expires_at is not None:
        answer.expires_at.FromMicroseconds(round(caller.expires_at * 1_000_000))
    return answer
